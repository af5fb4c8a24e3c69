"""A plan counts what the study will really run: its numbers are the ledger's where lengths are fixed, and bounds where they are not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from outlay import config as configs
from outlay import pilot
from outlay.cli_plan import days
from outlay.errors import ConfigError
from outlay.plan import KINDS, plan
from outlay.study import run_study
from outlay.types import Cost

STAGES = {"signals": "signals", "proxy-model": "proxy", "proxy-agreement": "agreement", "batch": "batch", "model": "model", "evaluation": "evaluation"}


def paid(root: Path) -> pd.DataFrame:
    """What the run really paid, by kind of stage."""
    table = pd.read_parquet(root / "ledger.parquet")
    table = table[table["paid"]].assign(kind=[_kind(c, s) for c, s in zip(table[table["paid"]]["campaign"], table[table["paid"]]["stage"], strict=True)])
    return table.groupby("kind")[["labels", "seconds", "flops", "prompt_tokens", "generated_tokens", "trained_tokens"]].sum().reindex(KINDS, fill_value=0)


def _kind(campaign: str, stage: str) -> str:
    if not campaign:
        return "base evaluation" if "evaluation" in stage else "space" if "space" in stage else "base signals"
    return STAGES["evaluation" if stage.startswith("evaluation") else stage]


CASES = {
    "frozen embeddings": {"strategies": ["random", "mean_entropy", "facility_location"], "starts": ["cold", "warm_new"], "schedules": ["even", [2, 6]], "rounds": [1, 2]},
    "live embeddings": {"strategies": ["facility_location"], "rounds": [3], "starts": ["cold"], "embedding": "live"},
    "a share is scored": {"strategies": ["mean_entropy"], "rounds": [2], "starts": ["cold"], "scored_share": 0.5},
    "a proxy scores": {"strategies": ["random", "mean_entropy", "facility_location"], "rounds": [2], "starts": ["cold", "warm_new"], "scored_share": 0.9, "proxy": "toy-small", "proxy_trainer": {"use": "toy", "epochs": 3}},
    "a proxy embeds": {"strategies": ["facility_location"], "rounds": [2], "starts": ["cold"], "embedding": "live", "proxy": "toy-small"},
}


@pytest.fixture(scope="module", params=CASES)
def toy(request, toy_study, tmp_path_factory):
    """(the plan of a toy study, its run directory)."""
    config = toy_study(**CASES[request.param])
    return plan(config, quiet=True), run_study(config, tmp_path_factory.mktemp("toy") / "run", quiet=True)


def test_a_plan_of_the_toy_study_is_its_ledger_to_the_last_token(toy):
    """Every prompt of the toy world has four words and every response one: nothing is left to expect."""
    found, root = toy
    actual = paid(root)
    for kind in KINDS:
        for case in (found.stages[kind].expected, found.stages[kind].worst):
            for name in ("labels", "flops", "prompt_tokens", "generated_tokens", "trained_tokens"):
                assert getattr(case, name) == actual.loc[kind, name], (kind, name)
        assert found.stages[kind].expected.seconds == pytest.approx(actual.loc[kind, "seconds"], rel=0.01), kind


def test_a_campaign_in_the_plan_is_charged_what_the_results_charge_it(toy):
    found, root = toy
    table = pd.read_parquet(root / "results.parquet")
    last = table[(table["round"] == table["rounds_run"]) & ~table["reference"]]
    means = last.groupby(["strategy", "rounds", "schedule", "start", "budget"])[["labels_spent", "flops", "prompt_tokens", "generated_tokens", "trained_tokens"]].mean()
    assert len(found.lines) == len(means)
    for line in found.lines:
        row = means.loc[(line.strategy, line.rounds, line.schedule, line.start, line.budget)]
        assert line.cost.expected.labels == row["labels_spent"] == line.budget
        for name in ("flops", "prompt_tokens", "generated_tokens", "trained_tokens"):
            assert getattr(line.cost.expected, name) == pytest.approx(row[name], abs=0.5), (line, name)


TINY = {
    "name": "few",
    "pool": {"use": "skills", "size": 60, "mixture": "zipf"},
    "pool_per_seed": 50,
    "model": "tiny",
    "scorer": {"use": "llm", "max_new_tokens": 6},
    "trainer": {"use": "sft", "epochs": 1, "lora_r": 4},
    "evaluators": {"test": {"use": "heldout", "max_new_tokens": 6, "source": {"use": "skills", "split": "test", "size": 12}}},
    "runtime": {"minibatch": 8},
    "strategies": ["random", "mean_entropy"],
    "rounds": [1, 2],
    "seeds": 1,
    "budgets": [8],
    "random_sets": 2,
    "executor": "serial",
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(the plan of a small study of the tiny model, its ledger by kind of stage, its run directory)."""
    config = configs.validate(TINY)
    found = plan(config, quiet=True)
    root = run_study(config, tmp_path_factory.mktemp("tiny") / "run", quiet=True)
    return found, paid(root), root


@pytest.mark.slow
def test_fixed_tokens_are_exact(tiny):
    found, actual, root = tiny
    for kind in ("base signals", "base evaluation", "evaluation"):
        for case in (found.stages[kind].expected, found.stages[kind].worst):
            assert case.prompt_tokens == actual.loc[kind, "prompt_tokens"], kind
    assert found.total.expected.labels == actual["labels"].sum()
    ledger = pd.read_parquet(root / "ledger.parquet")
    random = ledger[(ledger["campaign"] == "random-m1-even-cold-b8-s0") & (ledger["stage"] == "model")].iloc[0]
    line = next(line for line in found.lines if line.strategy == "random" and line.rounds == 1)
    assert line.cost.expected.trained_tokens == line.cost.worst.trained_tokens == random["trained_tokens"]  # what random buys is known
    assert line.cost.expected.flops == random["flops"]


@pytest.mark.slow
def test_the_worst_case_bounds_what_is_not_fixed(tiny):
    found, actual, _ = tiny
    for kind in KINDS:
        worst, expected = found.stages[kind].worst, found.stages[kind].expected
        for name in ("flops", "prompt_tokens", "generated_tokens", "trained_tokens"):
            assert max(actual.loc[kind, name], getattr(expected, name)) <= getattr(worst, name), (kind, name)
    assert found.stages["evaluation"].worst.generated_tokens == 6 * 12 * 5  # max_new_tokens x items x trained models, one of them a reference point
    assert found.timed and found.stages["model"].expected.seconds > 0


def test_a_plan_leaves_nothing_behind_and_is_the_same_again(toy_study, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    first = plan(toy_study(), quiet=True)
    assert list(tmp_path.iterdir()) == []
    assert replace(plan(toy_study(), quiet=True), memory=None) == replace(first, memory=None)


def test_without_measuring_seconds_are_left_out_and_the_rest_stays(toy_study):
    found, measured = (plan(toy_study(), measure=m, quiet=True) for m in (False, True))
    assert not found.timed and found.total.expected.seconds == found.total.worst.seconds == 0
    assert found.total.worst.flops == measured.total.worst.flops


def test_a_part_that_cannot_say_what_it_costs_is_named(toy_study, monkeypatch):
    from outlay.toy import ToyTrainer

    monkeypatch.delattr(ToyTrainer, "bill")
    with pytest.raises(ConfigError, match="cannot count the trainer 'toy': it has no method `bill`"):
        plan(toy_study(), quiet=True)


def test_days_wait_for_each_batch_and_are_unknown_without_a_wait(toy_study):
    prices = toy_study(prices={"days_per_round": 2.5}).prices
    assert days(Cost(seconds=43200), 4, prices) == pytest.approx(10.5)
    assert days(Cost(), 4, toy_study().prices) is None


def test_a_pilot_gives_the_spread_of_its_paired_differences(tmp_path):
    accuracy = {"random": [0.50, 0.60, 0.40], "greedy": [0.55, 0.63, 0.49]}
    rows = [
        {"campaign": f"{s}-m1-s{i}", "strategy": s, "seed": i, "budget": 8, "rounds_run": 1, "round": 1, "benchmark": "b", "reference": False, "accuracy": a}
        for s, values in accuracy.items() for i, a in enumerate(values)
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "results.parquet")
    assert pilot.spread(tmp_path) == (pytest.approx(np.std([0.05, 0.03, 0.09], ddof=1)), 1, 3)
    assert "unknown" in pilot.detectable(3) and "from 1 cells of 3 seeds" in pilot.detectable(3, pilot=tmp_path)
