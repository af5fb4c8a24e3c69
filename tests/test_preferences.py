"""Preferences on the toy world: which drafts are compared, who judges them, what is learned, and a campaign with people in files."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from outlay import cli, pairing, seeds
from outlay.acquisition import select
from outlay.config import validate, validate_as
from outlay.engine import DPO
from outlay.errors import AwaitingAnnotations, ConfigError, DataError
from outlay.measure.nearness import nearness
from outlay.oracles.judge import Judge
from outlay.plan import plan
from outlay.pools import pool_of
from outlay.real import finish, flow
from outlay.real.config import CampaignConfig
from outlay.store import Store
from outlay.study import check, run_study
from outlay.toy import ToyPool, ToyScorer
from outlay.toy_dpo import ToyDPO
from outlay.types import Annotation, Batch, Cost, Model, Pairs, Pool, Prompt, Request, Signals, View

GOLD = {row["id"]: row["response"] for size in (90, 120) for row in ToyPool(size=size)().to_pylist()}
BUYS = {"judgements": "preferences", "oracle": "judge", "trainer": {"use": "toy_dpo", "epochs": 3}}


# -- which two drafts --------------------------------------------------------------------------------------------------------


def test_drafts_that_differ_in_blanks_only_are_blank_or_were_cut_off_are_not_compared():
    assert pairing.pair_of(["a b", " a  b ", "", "c", "d"], [True] * 5) == (0, 3)
    assert pairing.pair_of(["a", "b", "c"], [False, True, True]) == (1, 2)
    assert pairing.pair_of(["a", "b"], [True, False]) is None
    assert pairing.pair_of(["a", "a "], [True, True]) is None


def test_only_wanted_prompts_are_drafted_and_those_without_two_drafts_make_room_for_the_next():
    pool = Pool("p", pa.table({name: [f"p{i}" for i in range(10)] for name in ("id", "text", "group")}))
    asked = []

    def write(prompts):
        asked.extend(p.id for p in prompts)
        good = [p.id for p in prompts if p.id not in ("p8", "p5")]
        return Pairs({key: ("x", "y") for key in good}, tuple(p.id for p in prompts if p.id not in good), Cost(flops=len(prompts)))

    found = pairing.choose(pool, np.arange(10), 4, lambda rows, k: rows[::-1][:k], write)
    assert list(found.drafts) == ["p9", "p7", "p6", "p4"] and found.unfit == ("p8", "p5")
    assert asked == ["p9", "p8", "p7", "p6", "p5", "p4"] and found.cost.flops == 6
    none = pairing.choose(pool, np.arange(10), 4, lambda rows, k: rows[:k], lambda prompts: Pairs({}, tuple(p.id for p in prompts)))
    assert not none.drafts and len(none.unfit) == 10


def test_the_toy_reward_gap_is_that_of_the_very_pair_that_is_shown(tmp_path):
    table = ToyPool(size=60)()
    pool, prompts = pool_of("toy", table), [Prompt(i, t) for i, t in zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True)]
    drafts = ToyScorer().pairs(Model("toy"), prompts, seed=1).drafts
    some = [p for p in prompts if p.id in drafts][:12]
    model = ToyDPO()(Model("toy"), some, [Annotation(p.id, "preference", chosen=drafts[p.id][0], rejected=drafts[p.id][1]) for p in some], tmp_path / "m", seed=0)
    shown = ToyScorer().pairs(model, prompts, seed=7)
    gaps = ToyScorer()(model, pool, frozenset({"reward_gap"}), seed=7).columns["reward_gap"]
    from outlay.toy import RESPONSES, featurise, load

    rewards = featurise([p.text for p in prompts]) @ (load(model) - load(Model("toy")))
    for row, prompt in enumerate(prompts):
        two = [rewards[row, RESPONSES.index(d)] for d in shown.drafts.get(prompt.id, ("north", "north"))]
        assert gaps[row] == pytest.approx(abs(two[0] - two[1]), abs=1e-6)
    assert (gaps > 0).any() and not ToyScorer()(Model("toy"), pool, frozenset({"reward_gap"}), seed=7).columns["reward_gap"].any()


# -- strategies --------------------------------------------------------------------------------------------------------------


def view(entropy, gap):
    ids = [f"p{i}" for i in range(len(entropy))]
    columns = {"sample_entropy": np.array(entropy, dtype=np.float32), "reward_gap": np.array(gap, dtype=np.float32)}
    return View(Signals(columns), np.arange(len(ids)), np.empty(0, dtype=np.int64), np.array([""] * len(ids)), seeds.lottery(0, ids))


def test_apl_takes_the_largest_gaps_among_the_most_uncertain_only():
    seen = view([9, 8, 7, 6, 1, 1], [0.1, 0.3, 0.2, 0.9, 5, 5])
    rng = np.random.default_rng(0)
    assert select("apl(factor=2)", seen, 2, rng).rows.tolist() == [3, 1]
    assert set(select("apl(factor=1)", seen, 2, rng).rows) == {0, 1}
    assert set(select("apl(factor=9)", seen, 2, rng).rows) == set(select("reward_gap", seen, 2, rng).rows) == {4, 5}


def test_before_anything_is_learned_apl_draws_among_the_filtered_by_lottery():
    seen = view(np.arange(40, dtype=float), np.zeros(40))
    picks = select("apl", seen, 5, np.random.default_rng(0)).rows
    best = np.arange(20, 40)
    assert picks.tolist() == best[np.argsort(seen.lottery[best])][:5].tolist()


# -- the judge ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def judge(tmp_path):
    """judge(**options)(drafts, ...): what is preferred for prompts whose gold answers are "ten apples 0", "ten apples 1", ..."""
    pq.write_table(pa.table({"id": [f"p{i}" for i in range(200)], "response": [f"ten apples {i}" for i in range(200)]}), tmp_path / "vault.parquet")

    def ask(*drafts, **options):
        requests = [Request(Prompt(f"p{i}", "?"), two) for i, two in enumerate(drafts)]
        return Judge(vault=tmp_path / "vault.parquet", journal=tmp_path / "journal.jsonl", **options)(requests)

    return ask


def test_the_judge_prefers_right_to_like_and_like_to_unlike_in_either_place(judge):
    found = judge(("ten apples 0!", " ten  apples 0"), ("ten apples", "seven pears"), ("seven pears", "ten apples")).annotations
    assert [(a.kind, a.chosen) for a in found] == [("preference", " ten  apples 0"), ("preference", "ten apples"), ("preference", "ten apples")]
    assert nearness("a  b", "a b") > nearness("a b c", "a b") > nearness("x", "a b") == 0


def test_noise_flips_its_share_and_the_same_prompts_again(judge):
    pairs = [("ten apples", "pears")] * 200
    wrong = [a.prompt_id for a in judge(*pairs, noise=0.3).annotations if a.chosen == "pears"]
    assert 40 < len(wrong) < 80 and wrong == [a.prompt_id for a in judge(*pairs[:150], noise=0.3).annotations if a.chosen == "pears"] + [k for k in wrong if int(k[1:]) >= 150]
    assert judge(*pairs, noise=1).annotations[0].chosen == "pears"


def test_equally_near_drafts_are_not_preferred_by_their_place(judge):
    first = np.array([a.chosen == "xy" for a in judge(*[("xy", "xz")] * 200).annotations])
    swapped = np.array([a.chosen == "xy" for a in judge(*[("xz", "xy")] * 200).annotations])
    assert 70 < first.sum() < 130 and (first != swapped).all()


def test_the_judge_refuses_what_is_no_pair(judge):
    with pytest.raises(DataError, match="'p0' has 1 drafts"):
        judge(("one",))


# -- studies -----------------------------------------------------------------------------------------------------------------


def content(root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file() and p.name != ".lock" and p.suffix != ".parquet"}


@pytest.fixture(scope="module")
def bought(toy_study, tmp_path_factory):
    """The run directory of a finished study of preferences. Read only."""
    config = toy_study(**BUYS, strategies=["random", "apl"], rounds=[2], starts=["cold"], budgets=[12], reference_curve=False)
    return run_study(config, tmp_path_factory.mktemp("preferences") / "run", quiet=True)


def test_what_is_bought_is_the_better_of_the_two_drafts_of_that_round(bought):
    for folder in bought.glob("campaigns/*/round-*"):
        batch, pairs = Store(bought).read(f"{folder.relative_to(bought)}/batch.json", Batch), Store(bought).read(f"{folder.relative_to(bought)}/pairs.json", Pairs)
        assert batch.cost.labels == len(batch.annotations) == 6
        for a in batch.annotations:
            assert {a.chosen, a.rejected} == set(pairs.drafts[a.prompt_id]) and nearness(a.chosen, GOLD[a.prompt_id]) >= nearness(a.rejected, GOLD[a.prompt_id])
        assert not set(pairs.unfit) & {a.prompt_id for a in batch.annotations}


def test_gold_answers_are_revealed_for_bought_prompts_only(bought):
    for campaign in bought.glob("campaigns/*"):
        ids = {a["prompt_id"] for path in campaign.glob("round-*/batch.json") for a in json.loads(path.read_text())["annotations"]}
        assert {json.loads(line)["id"] for line in (campaign / "reveals.jsonl").read_text().splitlines()} == ids and len(ids) == 12


def test_random_runs_all_its_rounds_since_each_model_writes_its_own_drafts(bought):
    table = pd.read_parquet(bought / "results.parquet")
    assert set(table["rounds_run"]) == {2}


def test_drafts_are_paid_for_as_scoring(bought):
    ledger = pd.read_parquet(bought / "ledger.parquet").query("stage == 'pairs'")
    assert len(ledger) == 4 and (ledger["phase"] == "score").all() and (ledger["flops"] > 0).all()


@pytest.mark.parametrize("stage", ["pairs.json", "batch.json"])
def test_a_study_cut_off_after_any_stage_ends_in_the_same_bytes(bought, tmp_path, stage, monkeypatch):
    config = validate(json.loads((bought / "study.json").read_text())["config"])
    whole, write = Store.write, []

    def cut(store, path, record):
        whole(store, path, record)
        write.append(path)
        if path.endswith(f"round-002/{stage}"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", cut)
        with pytest.raises(KeyboardInterrupt):
            run_study(config, tmp_path / "run", quiet=True)
    assert write[-1].endswith(stage)
    run_study(config, tmp_path / "run", quiet=True)
    assert content(tmp_path / "run") == content(bought)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"oracle": "replay"}, r"oracle 'replay' deals in responses, and judgements: preferences are to be bought; use another oracle \(human, judge\)"),
        ({"trainer": "toy"}, r"trainer 'toy' deals in responses.*\(dpo, toy_dpo\)"),
        ({"judgements": "responses", "oracle": "replay"}, "trainer 'toy_dpo' deals in preferences, and judgements: responses"),
        ({"judgements": "responses", "trainer": "toy"}, "oracle 'judge' deals in preferences"),
        ({"executor": {"use": "ray", "unit": "stages"}}, "cannot write drafts to compare on other machines"),
    ],
)
def test_parts_that_deal_in_something_else_are_refused_before_anything_runs(toy_study, changes, error):
    with pytest.raises(ConfigError, match=error):
        check(toy_study(**BUYS | changes))


def test_plan_says_that_it_cannot_count_preferences(toy_study):
    with pytest.raises(ConfigError, match="cannot count a study of preferences"):
        plan(toy_study(**BUYS))


def test_a_model_that_always_says_the_same_is_refused_by_name(toy_study, tmp_path, monkeypatch):
    monkeypatch.setattr(ToyScorer, "pairs", lambda self, model, prompts, *, seed: Pairs({}, tuple(p.id for p in prompts)))
    with pytest.raises(DataError, match="none of the 90 prompts on offer has two different drafts"):
        run_study(toy_study(**BUYS, strategies=["random"], rounds=[1], starts=["cold"]), tmp_path / "run", quiet=True)


# -- trainers ----------------------------------------------------------------------------------------------------------------


def test_a_trainer_of_preferences_refuses_responses(tmp_path):
    with pytest.raises(DataError, match="'a' has a response, and trainer 'toy_dpo' learns from preferences; ask for preferences"):
        ToyDPO()(Model("toy"), [Prompt("a", "carry amber")], [Annotation("a", response="north")], tmp_path / "m", seed=0)


def test_without_trl_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ConfigError, match=r"trainer 'dpo' needs the package trl.*pip install 'outlay\[trl\]'"):
        DPO()(Model("tiny"), [Prompt("a", "b")], [Annotation("a", "preference", chosen="x", rejected="y")], tmp_path / "m")


@pytest.mark.parametrize(("options", "error"), [({"beta": 0}, "'beta' = 0: it must be positive"), ({"arguments": {"beta": 1}}, "sets beta, which follows"), ({"epochs": 0}, "trainer 'dpo', option 'epochs'")])
def test_wrong_options_of_dpo_are_named(options, error):
    with pytest.raises(ConfigError, match=error):
        DPO(**options)


# -- a campaign with people --------------------------------------------------------------------------------------------------

RAW = {
    "name": "people", "pool": {"use": "toy", "size": 90}, "model": "toy", "scorer": "toy", "trainer": {"use": "toy_dpo", "epochs": 2}, "grader": "toy", "judgements": "preferences",
    "strategy": "apl", "rounds": 2, "budget": 12, "shard": 50, "dev_share": 0, "audit_share": 0, "dev_set": {"use": "toy", "size": 20, "split": "test"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"dev_share": 0.1, "dev_set": None}, "set dev_share to 0"),
        ({"audit_share": 0.1}, "set audit_share to 0"),
        ({"drafts": True}, "set drafts to false"),
    ],
)
def test_a_campaign_of_preferences_says_what_it_cannot_measure_by_them(changes, error):
    with pytest.raises(ConfigError, match=error):
        validate_as(CampaignConfig, RAW | changes)


@pytest.mark.parametrize("oracle", [{"use": "llm", "base_url": "http://localhost:1/v1", "model": "m"}, {"use": "mixed", "machine": "replay"}])
def test_a_machine_that_writes_responses_is_no_annotator_of_preferences(oracle, tmp_path):
    with pytest.raises(ConfigError, match="deals in responses"):
        flow.next_round(validate_as(CampaignConfig, RAW | {"oracle": oracle}), tmp_path / "run", print)


def test_a_campaign_of_preferences_end_to_end_in_files(tmp_path):
    """Two people judge each pair, by the exported file; one of them skips one."""
    config, run = tmp_path / "c.json", tmp_path / "run"
    config.write_text(json.dumps(RAW | {"budget": 24, "annotators": {"people": 2, "per_item": 2}}))

    def outlay(*words):
        return CliRunner().invoke(cli.app, [*words, str(config), "--out", str(run)], standalone_mode=False)

    for number in (1, 2):
        with pytest.raises(AwaitingAnnotations, match=f"round {number} waits for 12 of 12 judgements"):
            raise outlay("campaign", "next").exception
        asked = [json.loads(line) for line in (run / f"handoff/round-{number:03d}/requests.jsonl").read_text().splitlines()]
        assert all(line["kind"] == "preference" and len(set(line["drafts"])) == 2 for line in asked)
        assert CliRunner().invoke(cli.app, ["campaign", "export", str(config), str(tmp_path / "ask.jsonl"), "--to", "jsonl", "--out", str(run)], standalone_mode=False).exit_code == 0
        rows = [json.loads(line) for line in (tmp_path / "ask.jsonl").read_text().splitlines()]
        answers = []
        for row in rows:
            near, far = sorted((row["first"], row["second"]), key=lambda d: -nearness(d, GOLD[row["outlay_id"]]))
            answers += [row | {"chosen": near, "rejected": far, "annotator": who, "seconds": 5} for who in ("ann", "ben")]
        answers[0] |= {"chosen": None, "rejected": None, "skip_reason": "both are wrong"}
        (tmp_path / "back.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
        done = CliRunner().invoke(cli.app, ["campaign", "import", str(config), str(tmp_path / "back.jsonl"), "--out", str(run)], standalone_mode=False)
        assert "12 new (1 skip among them)" in done.output
    assert outlay("campaign", "next").exception is None
    status = outlay("campaign", "status").output
    assert "22 of 24 judgements paid" in status and "100% of the pairs of annotators agree" in status and "campaign finish" in status
    finish.finish(run)
    rows = [json.loads(line) for line in (run / "final/dataset/train.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and all(list(row)[:3] == ["prompt", "chosen", "rejected"] and nearness(row["chosen"], GOLD[row["id"]]) >= nearness(row["rejected"], GOLD[row["id"]]) for row in rows)
    assert "`chosen`, `rejected`" in (run / "final/dataset/README.md").read_text()
    why = [json.loads(line) for line in (run / "final/dataset/provenance.jsonl").read_text().splitlines()]
    assert all(judgement["chosen"] and judgement["rejected"] for row in why for judgement in row["judgements"] if judgement["kind"] == "preference")
