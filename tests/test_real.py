"""Campaigns with annotators on the toy world: what is asked and paid, what is refused, and that every command can be repeated."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from outlay import cli
from outlay.annotate.imports import bring_in
from outlay.campaign import run
from outlay.config import validate_as
from outlay.errors import AwaitingAnnotations, ConfigError, DataError, OutlayError, RunConflict
from outlay.measure.stats import Interval
from outlay.oracles import handoff
from outlay.real import finish, flow, plan, setup, status
from outlay.real.config import CampaignConfig, load
from outlay.real.state import state_of
from outlay.seeds import lottery
from outlay.store import Store
from outlay.toy import ToyPool
from outlay.types import Batch, Evaluation, Selection

RAW = {
    "name": "people", "pool": {"use": "toy", "size": 90}, "model": "toy", "scorer": "toy", "trainer": {"use": "toy", "epochs": 2}, "grader": "toy",
    "strategy": "mean_entropy", "rounds": 3, "budget": 40, "shard": 50,
}  # fmt: skip
GOLD = {row["id"]: row["response"] for row in ToyPool(size=90)().to_pylist()}
TEST = {"use": "toy", "size": 30, "split": "test"}


def config(**changes) -> CampaignConfig:
    return validate_as(CampaignConfig, RAW | changes)


def go(asked: CampaignConfig, root: Path) -> list[str]:
    """`outlay campaign next`; -> what it said."""
    said: list[str] = []
    flow.next_round(asked, root, said.append)
    return said


def give(root: Path, *, skip: frozenset[str] = frozenset(), who: tuple[str, ...] = ("anna",), most: int = 10**6) -> list[str]:
    """People answer what waits, at most so many prompts of each hand-off; -> the ids."""
    done = []
    for folder in sorted((root / "handoff").glob("round-*")):
        left = list(handoff.waiting(folder))[:most]
        rows = [
            {"prompt_id": key, "kind": "skip" if key in skip else "response", "response": "" if key in skip else GOLD[key], "chosen": "", "rejected": "", "annotator": name, "round": int(folder.name[-3:]), "seconds": 12.0, "usd": 0.0, "at": "2026-01-01T00:00:00Z", "reason": ""}
            for key in left for name in who
        ]  # fmt: skip
        handoff.write(folder / "annotations.jsonl", handoff.lines(folder / "annotations.jsonl") + rows)
        done += left
    return done


def complete(asked: CampaignConfig, root: Path, **people) -> None:
    """The whole campaign, everybody answering."""
    for _ in range(2 * asked.rounds + 2):
        try:
            go(asked, root)
            return
        except AwaitingAnnotations:
            give(root, **people)
    pytest.fail("the campaign never ended")


def content(root: Path) -> dict[str, str]:
    """Hash of every stage file."""
    files = [p for p in root.rglob("*") if p.is_file() and p.name not in (".lock", "study.json") and "final" not in p.parts]
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The run directory of a finished campaign, not to be changed: in round 1 the first three prompts are skipped."""
    root = tmp_path_factory.mktemp("real") / "people"
    asked = config()
    with pytest.raises(AwaitingAnnotations):
        go(asked, root)
    first = Store(root).read(f"{setup.opened(root).folders[0]}/selection.json", Selection).ids[:3]
    complete(asked, root, skip=frozenset(first))
    return root


# -- budget ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("budget", "k", "dev"), [(300, 1, 0.1), (300, 2, 0.1), (301, 2, 0.25), (37, 1, 0.0)])
def test_dev_set_random_slices_and_choices_of_all_annotators_are_inside_of_the_budget(budget, k, dev):
    asked = config(budget=budget, dev_share=dev, annotators={"people": k, "per_item": k})
    assert budget - k < k * (asked.dev_items + sum(asked.sizes)) <= budget


def test_what_is_paid_is_the_budget_when_nobody_skips_for_good(done):
    state = state_of(setup.opened(done))
    assert state.paid == 40
    assert [(s.number, s.bought, s.skipped) for s in state.stages] == [(0, 4, 0), (1, 12, 3), (2, 12, 0), (3, 12, 0)]


def test_places_that_are_skipped_twice_are_carried_into_the_next_round(tmp_path):
    asked = config(rounds=2, budget=12, dev_share=0)
    with pytest.raises(AwaitingAnnotations):
        go(asked, tmp_path)
    everything = frozenset(GOLD)
    give(tmp_path, skip=everything, most=4)
    give(tmp_path)
    with pytest.raises(AwaitingAnnotations):  # the four are asked again
        go(asked, tmp_path)
    assert len(handoff.requests(handoff.folder(tmp_path, 1))) == 6 + 4
    give(tmp_path, skip=everything)
    with pytest.raises(AwaitingAnnotations):
        go(asked, tmp_path)
    assert len(handoff.requests(handoff.folder(tmp_path, 2))) == 6 + 4


def test_a_dev_set_that_everybody_skips_is_none(tmp_path):
    asked = config(rounds=1, budget=12)
    with pytest.raises(AwaitingAnnotations):
        go(asked, tmp_path)
    for _ in range(2):  # it, and its spare
        give(tmp_path, skip=frozenset(line["id"] for line in handoff.requests(handoff.folder(tmp_path, 0))))
        with contextlib.suppress(AwaitingAnnotations):
            go(asked, tmp_path)
    state = state_of(setup.opened(tmp_path))
    assert state.finished and state.base is None and state.paid == 11


def test_each_annotator_of_a_prompt_is_paid(tmp_path):
    asked = config(rounds=1, budget=12, dev_share=0, annotators={"people": 3, "per_item": 3})
    complete(asked, tmp_path, who=("anna", "ben", "cleo"))
    state = state_of(setup.opened(tmp_path))
    assert (state.paid, state.stages[0].bought) == (12, 4)
    assert state.agreement.alike == 1.0


# -- what is asked ---------------------------------------------------------------------------------------------------------


def test_nothing_is_asked_twice_and_the_dev_set_is_never_trained_on(done):
    live = setup.opened(done)
    asked = [line["id"] for folder in sorted((done / "handoff").glob("round-*")) for line in handoff.requests(folder)]
    assert len(asked) == len(set(asked)) == 40 + 3
    dev = {a.prompt_id for a in Store(done).read(setup.DEV, Batch).annotations}
    bought = {a.prompt_id for folder in live.folders for a in Store(done).read(f"{folder}/batch.json", Batch).annotations}
    assert len(dev) == 4 and not dev & bought


def test_the_random_slice_and_the_dev_set_come_without_the_models_draft(done):
    """No language model here: the drafts are those that the desk of a real one writes."""
    live = setup.opened(done)
    requests = []

    def stop(asked):
        requests.extend(asked)
        raise AwaitingAnnotations("enough")

    desk = replace(flow._desk(live), drafts=lambda model, prompts: [f"draft of {p.id}" for p in prompts], oracle=stop, store=Store(done.parent / "drafts"))
    with pytest.raises(AwaitingAnnotations):
        list(run(live.campaign, desk))
    shown = [r.drafts for r in requests]
    assert shown == [(f"draft of {r.prompt.id}",) for r in requests[:11]] + [()]
    assert [r.why["score"] is None for r in requests] == [False] * 11 + [True]


def test_each_model_is_scored_on_the_random_slice_before_it_is_trained_on_it(done):
    store, live = Store(done), setup.opened(done)
    for number, folder in enumerate(live.folders, 1):
        before = store.read(f"{folder}/before.parquet", Evaluation)
        selection = store.read(f"{folder}/selection.json", Selection)
        assert selection.audit == 1 and set(selection.ids[-1:]) <= set(before.columns["id"])
        if number == 1:  # by the base, on the same items
            again = live.grade(live.bench.base, f"{folder}/bought.parquet", "before")
            assert list(again.columns["correct"]) == list(before.columns["correct"])
    audits = [stage.audit for stage in state_of(live).rounds]
    assert [a.share_left for a in audits] == pytest.approx([1, 1 - 12 / 82, 1 - 24 / 82])  # of the 85 prompts outside of the dev set and its spare, 3 have no answer


def test_without_a_shadow_arm_a_slice_is_drawn_anew_from_what_is_left(done):
    live, taken = setup.opened(done), set()
    ids = [live.bench.pool().ids[row] for row in live.bench.rows(0)]
    for number, folder in enumerate(live.folders, 1):
        selection, drawn = Store(done).read(f"{folder}/selection.json", Selection), dict(zip(ids, lottery(0, ids, "audit", number), strict=True))
        assert selection.ids[-1:] == (min(drawn.keys() - taken, key=drawn.__getitem__),) and selection.audit == 1
        taken |= {a.prompt_id for a in Store(done).read(f"{folder}/batch.json", Batch).annotations}


# -- repeated, interrupted, refused ----------------------------------------------------------------------------------------


def test_a_campaign_that_was_cut_off_at_every_stage_ends_with_the_same_bytes(tmp_path, monkeypatch):
    asked = config(rounds=2, budget=20)
    complete(asked, tmp_path / "whole")
    real, written = Store.write, [0]

    def write(self, path, record):
        written[0] += 1
        if written[0] > 1:  # one more stage each time
            raise KeyboardInterrupt
        real(self, path, record)

    monkeypatch.setattr(Store, "write", write)
    for _ in range(60):
        written[0] = 0
        try:
            go(asked, tmp_path / "cut")
            break
        except AwaitingAnnotations:
            give(tmp_path / "cut")
        except KeyboardInterrupt:
            continue
    monkeypatch.undo()
    go(asked, tmp_path / "cut")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_the_same_command_again_changes_nothing(done):
    before = content(done)
    assert go(config(), done) == []
    assert content(done) == before


def test_a_pool_that_changed_is_refused_with_the_difference(tmp_path):
    file = tmp_path / "pool.jsonl"

    def save(rows):
        file.write_text("".join(json.dumps(r) + "\n" for r in rows))

    old = ToyPool(size=90)()
    save([{"key": r["id"], "prompt": r["text"]} for r in old.to_pylist()])
    asked = config(pool={"use": "file", "path": str(file), "id": "key", "response": None})
    with pytest.raises(AwaitingAnnotations):
        go(asked, tmp_path / "run")
    new = [{"key": r["id"], "prompt": r["text"]} for r in old.to_pylist()]
    new[3]["prompt"] += " please"
    gone = new.pop(10)["key"]
    save([*new, {"key": "extra-1", "prompt": "a new one"}, {"key": "extra-2", "prompt": "another"}])
    with pytest.raises(RunConflict, match=rf"2 prompts are new, e\.g\. 'extra-1', 1 prompt is gone, e\.g\. '{gone}', 1 prompt is with another text"):
        go(asked, tmp_path / "run")


def test_another_strategy_in_the_same_run_is_refused_and_a_new_price_is_not(tmp_path):
    with pytest.raises(AwaitingAnnotations):
        go(config(), tmp_path)
    with pytest.raises(RunConflict, match="strategy was 'mean_entropy', is 'random'"):
        go(config(strategy="random"), tmp_path)
    with pytest.raises(AwaitingAnnotations):
        go(config(prices={"per_annotation": 3.0}), tmp_path)
    assert "$0.00 of $120.00" in status.budget(state_of(setup.opened(tmp_path)))


def test_a_second_process_is_refused_and_the_first_one_named(tmp_path):
    tmp_path.mkdir(exist_ok=True)
    with Store(tmp_path).lock(".lock"), pytest.raises(RunConflict, match=rf"pid {os.getpid()}"):
        go(config(), tmp_path)


def test_a_full_disk_leaves_the_judgements_that_were_there(tmp_path, monkeypatch):
    with pytest.raises(AwaitingAnnotations):
        go(config(), tmp_path)
    give(tmp_path, most=3)
    folder = handoff.folder(tmp_path, 1)
    before = (folder / "annotations.jsonl").read_bytes()

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutlayError, match="disk is full"):
        give(tmp_path)
    monkeypatch.undo()
    assert (folder / "annotations.jsonl").read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["annotations.jsonl", "requests.jsonl"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"budget": 3}, "leaves 2 prompts for 3 rounds, with 1 a prompt and 1 for the dev set"),
        ({"budget": 4}, r"no room for a random slice \(batches: \[1, 1, 1\]\)"),
        ({"dev_set": TEST}, "set dev_share to 0"),
        ({"annotators": {"per_item": 2}}, "annotators: per_item = 2 judgements of each prompt need as many people"),
        ({"annotators": {"per_itm": 2}}, "unknown key 'annotators.per_itm'; did you mean 'per_item'"),
        ({"stratgy": "random"}, "unknown key 'stratgy'; did you mean 'strategy'"),
        ({"drafts": True}, "they need the scorer llm"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_line(change, says):
    with pytest.raises(ConfigError, match=says) as refused:
        config(**change)
    assert "\n" not in str(refused.value)


def test_a_study_does_not_wait_for_people(toy_study):
    from outlay.study import check

    with pytest.raises(ConfigError, match="waits for people"):
        check(toy_study(oracle="human"))


def test_a_pool_that_is_too_small_is_refused_before_anybody_is_asked(tmp_path):
    with pytest.raises(ConfigError, match="the pool has 90 prompts, too few for 90 bought ones and 3 spares"):
        go(config(budget=90), tmp_path / "run")
    assert not (tmp_path / "run/handoff").exists()


# -- status ----------------------------------------------------------------------------------------------------------------


def test_status_always_says_what_to_do_next(tmp_path):
    asked = config(rounds=2, budget=20)
    seen = []

    def advice():
        seen.append(list(status.lines(state_of(setup.opened(tmp_path)), "c.yaml"))[-1])

    for _ in range(2):
        with pytest.raises(AwaitingAnnotations):
            go(asked, tmp_path)
        advice()
        give(tmp_path)
        advice()
    go(asked, tmp_path)
    advice()
    finish.finish(tmp_path)
    advice()
    assert [line.removeprefix("next: ") for line in seen] == [
        "11 judgements to give: `outlay annotate c.yaml`, or `outlay campaign import c.yaml FILES`; then `outlay campaign next c.yaml`",
        "`outlay campaign next c.yaml`",
        "9 judgements to give: `outlay annotate c.yaml`, or `outlay campaign import c.yaml FILES`; then `outlay campaign next c.yaml`",
        "`outlay campaign next c.yaml`; or stop here with `outlay campaign finish c.yaml`",
        "`outlay campaign finish c.yaml`",
        f"nothing, it is finished: {tmp_path / 'final'}",
    ]


def test_the_forecast_is_unknown_with_two_rounds_and_says_so_and_is_given_with_three(done, tmp_path):
    assert "points of dev accuracy, 95 % interval" in status.forecast(state_of(setup.opened(done)))
    copy = shutil.copytree(done, tmp_path / "copy")
    (copy / setup.opened(copy).folders[2] / "model.json").unlink()
    assert "unknown, a forecast needs 3 trained rounds and there are 2" in status.forecast(state_of(setup.opened(copy)))


def test_status_says_heuristic_where_there_is_nothing_to_compare_with(done):
    assert "a heuristic; only a replay on labelled data compares with random" in status.verdict(state_of(setup.opened(done)))


# -- finish ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(done, tmp_path_factory):
    root = shutil.copytree(done, tmp_path_factory.mktemp("finished") / "run")
    finish.finish(root)
    return root


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_data_set_has_what_was_bought_and_not_the_dev_set(finished):
    train, dev = rows(finished / "final/dataset/train.jsonl"), rows(finished / "final/dataset/dev.jsonl")
    assert len(train) == 36 and len(dev) == 4
    assert {"prompt", "completion", "id"} <= train[0].keys()
    assert all(row["completion"] == GOLD[row["id"]] for row in train + dev)
    assert not {row["id"] for row in train} & {row["id"] for row in dev}


def test_every_item_says_why_it_was_asked_by_which_model_who_answered_when_and_in_how_many_seconds(finished):
    found = rows(finished / "final/dataset/provenance.jsonl")
    assert len(found) == 43
    roles = [row["role"] for row in found]
    assert (roles.count("dev"), roles.count("random slice"), roles.count("chosen")) == (4, 3, 36)
    assert sum(row["kind"] == "skip" for row in found) == 3
    for row in found:
        assert [(j["annotator"], j["seconds"], j["at"]) for j in row["judgements"]] == [("anna", 12.0, "2026-01-01T00:00:00Z")]
        if row["role"] == "chosen":
            assert row["score"] is not None and row["rank"] >= 1 and row["represents"] >= 0
            assert row["chosen_by"]["round"] == row["round"] - 1 and row["chosen_by"]["digest"]


def test_finishing_again_replaces_the_folder_with_the_same(finished):
    before = {p.name: p.read_bytes() for p in (finished / "final").rglob("*") if p.is_file()}
    (finished / "final/dataset/train.jsonl").write_text("spoilt")
    finish.finish(finished)
    assert {p.name: p.read_bytes() for p in (finished / "final").rglob("*") if p.is_file()} == before
    assert not [p for p in finished.iterdir() if p.name.startswith(".final")]


def test_a_campaign_can_stop_after_any_round_but_does_not_leave_paid_answers_out_silently(tmp_path):
    asked = config(rounds=2, budget=20)
    with pytest.raises(AwaitingAnnotations):
        go(asked, tmp_path)
    with pytest.raises(ConfigError, match=r"no round of .* is trained on yet"):
        finish.finish(tmp_path)
    give(tmp_path)
    with pytest.raises(AwaitingAnnotations):
        go(asked, tmp_path)
    give(tmp_path, most=5)
    with pytest.raises(ConfigError, match="round 2 has 5 judgements that no model was trained on"):
        finish.finish(tmp_path)
    finish.finish(tmp_path, leave_open=True)
    assert len(rows(tmp_path / "final/dataset/train.jsonl")) == 9
    assert len(rows(tmp_path / "final/dataset/not-trained-on.jsonl")) == 5
    give(tmp_path)
    go(asked, tmp_path)  # and go on later
    assert state_of(setup.opened(tmp_path)).finished


@pytest.mark.slow
def test_the_test_set_is_looked_at_by_finish_alone(tmp_path):
    asked = config(rounds=1, budget=10, test_set=TEST)
    complete(asked, tmp_path)
    assert not list(tmp_path.rglob("*test*.parquet"))
    finish.finish(tmp_path)
    page = (tmp_path / "final/report.html").read_text(encoding="utf-8")
    assert "On the test set, looked at once, now: base model" in page and "(n = 30)" in page


@pytest.mark.slow
def test_the_report_cannot_be_broken_by_a_prompt(done, tmp_path):
    root = shutil.copytree(done, tmp_path / "run")
    raw = Store(root).read("campaign.json", dict)
    raw["config"]["note"] = "<script>alert(1)</script>"
    Store(root).write("campaign.json", raw)
    finish.finish(root)
    page = (root / "final/report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page


# -- plan and simulation ---------------------------------------------------------------------------------------------------


def cell(strategy, rounds, accuracy, low=None, high=None):
    return plan.Cell(strategy, rounds, accuracy, None if low is None else Interval((low + high) / 2, low, high, 5))


def test_random_is_suggested_where_nothing_is_surely_better():
    chosen, why = plan.suggest([cell("random", 1, 0.5), cell("mean_entropy", 4, 0.6, -0.01, 0.2), cell("k_means", 1, 0.4, -0.2, -0.01)])
    assert (chosen.strategy, chosen.rounds) == ("random", 1) and "none of the others is surely better" in why and "mean_entropy in 4 rounds had the highest mean" in why


def test_the_best_of_those_that_surely_beat_random_is_suggested():
    chosen, _ = plan.suggest([cell("random", 1, 0.5), cell("a", 1, 0.7, -0.1, 0.5), cell("b", 2, 0.6, 0.05, 0.15), cell("c", 4, 0.55, 0.01, 0.09)])
    assert chosen.strategy == "b"


def test_the_plan_adds_up_and_days_follow_the_people():
    said = list(plan.lines(config(annotators={"people": 2, "per_day": 5}, prices={"per_annotation": 2.5}), Path("unused")))
    assert "budget: 40 judgements, $100.00 at $2.50 each: dev set 4, random slices 3, chosen 33" in said[1]
    assert said[2].startswith("days: 6 (2, 2, 2 a round")
    assert "days: unknown" in list(plan.lines(config(), Path("unused")))[2]


@pytest.mark.slow
def test_a_replay_on_a_labelled_sample_buys_from_it_and_tests_on_the_rest(tmp_path):
    sample = {"use": "toy", "size": 80}
    asked = config(sample=sample, replay={"strategies": ["mean_entropy"], "rounds": [2], "seeds": 2})
    said = "\n".join(plan.lines(asked, tmp_path, quiet=True))
    assert "replay: 22 of the sample's prompts bought, 2 seeds" in said and "suggestion: " in said and "random, 1 round: " in said
    (home,) = (tmp_path / "replay").iterdir()
    pool, test = (set(pq.read_table(home / f"{name}.parquet").column("id").to_pylist()) for name in ("pool", "test"))
    assert (len(pool), len(test), len(pool & test)) == (56, 24, 0)
    assert "by replay on 22 labelled prompts" in Store(tmp_path).read("replay.json", dict)["verdict"]


def test_a_simulated_campaign_runs_through_without_waiting_and_pays_all_judgements(tmp_path):
    asked = config(oracle={"use": "noisy", "errors": {"anna": 0.0, "ben": 0.3, "cleo": 0.3}}, annotators={"people": 3, "per_item": 3}, budget=60)
    said = go(asked, tmp_path)
    assert [line.split(":")[0] for line in said if line.startswith("round")] == ["round 1 of 3", "round 2 of 3", "round 3 of 3"]
    assert state_of(setup.opened(tmp_path)).paid == 60


def test_people_and_a_machine_share_the_budget_and_status_measures_the_machine(tmp_path):
    machine = {"use": "noisy", "errors": {"machine": 0.0}}
    asked = config(oracle={"use": "mixed", "machine": machine, "share": 0.6, "probe": 0.5}, budget=60)
    assert asked.dev_items + asked.buys + asked.probes == 60 and asked.probes > 8
    complete(asked, tmp_path)
    state = state_of(setup.opened(tmp_path))
    assert 55 <= state.paid <= 60
    assert state.machine.mean == 1.0 and state.machine.n >= 8
    assert any("the machine gave the same answer as people on 100.0 %" in line for line in status.lines(state, "c.yaml"))


# -- command line ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def outlay(monkeypatch, capsys, tmp_path):
    """outlay("next", ...) -> (exit code, stdout, stderr) of `outlay campaign next ...`, in an empty working directory with c.yaml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(RAW))

    def go(*arguments, of="campaign"):
        monkeypatch.setattr(sys, "argv", ["outlay", of, *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return left.value.code or 0, said.out, said.err

    return go


def test_what_init_writes_is_a_valid_campaign(outlay):
    assert outlay("campaign", of="init")[0] == 0
    asked = load(Path("campaign.yaml"))
    assert (asked.budget, asked.dev_items, sum(asked.sizes)) == (300, 30, 270)
    assert outlay("next", "campaign.yaml")[2] == "error: pool file prompts.jsonl does not exist; check the path in the config\n"
    assert not Path("runs/my-campaign").exists()


def test_exit_codes_tell_waiting_from_refused_from_done(outlay, tmp_path):
    assert outlay("status", "c.yaml")[0] == 0
    code, out, err = outlay("next", "c.yaml")
    assert code == 3 and "next: 16 judgements to give" in out and "round 1 waits for 12 of 12 judgements" in err
    assert outlay("export", "c.yaml", "tasks.jsonl")[0] == 0
    tasks = rows(tmp_path / "tasks.jsonl")
    assert len(tasks) == 16
    done = [task | {"completion": GOLD[task["outlay_id"]], "annotator": "anna"} for task in tasks]
    (tmp_path / "bad.jsonl").write_text(json.dumps(done[0] | {"completion": " "}) + "\n")
    code, out, err = outlay("import", "c.yaml", "bad.jsonl")
    assert (code, out) == (1, "") and "empty response" in err
    (tmp_path / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in done))
    assert outlay("import", "runs/people", "good.jsonl")[0] == 0
    assert outlay("export", "c.yaml", "more.jsonl")[2].startswith("error: nothing waits for an answer")
    assert outlay("next", "runs/people")[0] == 3
    assert outlay("finish", "c.yaml")[0] == 0
    assert "is a campaign with annotators, not a study" in outlay("runs/people", of="report")[2]


# -- import ----------------------------------------------------------------------------------------------------------------


def test_an_import_is_all_or_nothing_over_the_dev_set_and_the_round(tmp_path):
    root = tmp_path / "run"
    with pytest.raises(AwaitingAnnotations):
        go(config(), root)
    asked = [line for number in (0, 1) for line in handoff.requests(handoff.folder(root, number))]
    good = [{"outlay_id": line["id"], "prompt": line["prompt"], "completion": GOLD[line["id"]], "annotator": "anna"} for line in asked]
    file = tmp_path / "answers.jsonl"

    def bring(rows, **options):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return bring_in(root, [file], None, **options)

    def kept():
        return [len(handoff.collected(handoff.folder(root, number))) for number in (0, 1)]

    refused = bring([*good, {"outlay_id": "never-asked", "completion": "up", "annotator": "anna"}])
    assert not refused.ok and "never asked" in refused.text and kept() == [0, 0]
    assert bring(good, dry_run=True).ok and kept() == [0, 0]
    assert bring(good).ok and kept() == [4, 12]
    assert bring(good).ok and kept() == [4, 12]


def test_an_import_before_anything_was_asked_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no requests yet"):
        bring_in(tmp_path, [], None)
