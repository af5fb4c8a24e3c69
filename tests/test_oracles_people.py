"""People and simulated people: what is asked, what is paid, and which answer is trained on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from outlay.errors import AwaitingAnnotations, ConfigError, DataError
from outlay.oracles import handoff
from outlay.oracles.human import Human
from outlay.oracles.mixed import Mixed
from outlay.oracles.mixed import probes as machine_probes
from outlay.oracles.noisy import Noisy
from outlay.types import Prompt, Request

WHY = {"score": 1.5, "rank": 1, "represents": 7}


def requests(*ids, number=1):
    return [Request(Prompt(key, f"What of {key}?", "g"), ("a draft",), number, WHY) for key in ids]


def answer(folder, *rows):
    """(id, annotator, response or None for a skip) into annotations.jsonl."""
    known = handoff.lines(folder / "annotations.jsonl")
    new = [
        {"prompt_id": key, "kind": "skip" if said is None else "response", "response": said or "", "chosen": "", "rejected": "", "annotator": who, "round": 1, "seconds": 10.0, "usd": 0.0, "at": "2026-01-01T00:00:00Z", "reason": ""}
        for key, who, said in rows
    ]
    handoff.write(folder / "annotations.jsonl", known + new)


def test_what_is_asked_is_written_once_and_grows_by_what_is_asked_again(tmp_path):
    human, folder = Human(run=tmp_path), handoff.folder(tmp_path, 1)
    for asked in (requests("a", "b"), requests("a", "b"), requests("c")):
        with pytest.raises(AwaitingAnnotations):
            human(asked)
    lines = handoff.requests(folder)
    assert [line["id"] for line in lines] == ["a", "b", "c"]
    assert lines[0] == {"id": "a", "prompt": "What of a?", "group": "g", "drafts": ["a draft"], "round": 1, "kind": "response", "why": WHY, "annotators": 1}


def test_the_campaign_waits_until_each_prompt_has_all_its_judgements(tmp_path):
    human, folder = Human(run=tmp_path, per_item=2), handoff.folder(tmp_path, 1)
    with pytest.raises(AwaitingAnnotations, match="round 1 waits for 4 of 4 judgements"):
        human(requests("a", "b"))
    answer(folder, ("a", "anna", "x"), ("a", "ben", "x"), ("b", "anna", "y"))
    with pytest.raises(AwaitingAnnotations, match="1 of 4"):
        human(requests("a", "b"))
    assert handoff.waiting(folder) == {"b": 1}
    answer(folder, ("b", "ben", "z"))
    assert [a.response for a in human(requests("a", "b")).annotations] == ["x", "y"]


def test_every_judgement_is_paid_skips_are_not_and_a_prompt_is_skipped_only_if_all_skip_it(tmp_path):
    human, folder = Human(run=tmp_path, per_item=2), handoff.folder(tmp_path, 1)
    with pytest.raises(AwaitingAnnotations):
        human(requests("a", "b", "c"))
    answer(folder, ("a", "anna", "x"), ("a", "ben", "x"), ("b", "anna", None), ("b", "ben", "y"), ("c", "anna", None), ("c", "ben", None))
    batch = human(requests("a", "b", "c"))
    assert batch.cost.labels == 3
    assert [(a.kind, a.response, a.annotator, a.seconds) for a in batch.annotations] == [("response", "x", "anna, ben", 20.0), ("response", "y", "ben", 20.0), ("skip", "", "anna, ben", 20.0)]


def test_a_rule_that_would_drop_a_paid_prompt_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot settle disagreement by 'unanimous'"):
        Human(run=tmp_path, settle="unanimous")


# -- noisy -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def noisy(tmp_path):
    """noisy(**options): on 400 prompts, of which each has its own answer."""
    ids = [f"p{i}" for i in range(400)]
    pq.write_table(pa.table({"id": ids, "response": [f"answer {i}" for i in range(400)]}), tmp_path / "vault.parquet")

    def make(**options):
        return Noisy(vault=tmp_path / "vault.parquet", journal=tmp_path / "journal.jsonl", **options)

    make.requests = requests(*ids)
    make.gold = {key: f"answer {i}" for i, key in enumerate(ids)}
    return make


def rate(batch, gold):
    return np.mean([a.response != gold[a.prompt_id] for a in batch.annotations if a.kind == "response"])


def test_annotators_err_at_their_own_rates(noisy):
    batch = noisy(errors={"careful": 0.05, "hasty": 0.5})(noisy.requests)
    wrong = {name: np.mean([a.response != noisy.gold[a.prompt_id] for a in batch.annotations if a.annotator == name]) for name in ("careful", "hasty")}
    assert 0 < wrong["careful"] < 0.12
    assert 0.38 < wrong["hasty"] < 0.62
    assert batch.cost.labels == 400


def test_the_majority_of_three_errs_less_than_each_of_them_and_costs_three_times_as_much(noisy):
    three = noisy(errors=dict.fromkeys("abc", 0.3), per_item=3)(noisy.requests)
    assert rate(three, noisy.gold) < 0.26 < rate(noisy(errors={"a": 0.3})(noisy.requests), noisy.gold) + 0.02
    assert three.cost.labels == 1200


def test_the_same_seed_errs_on_the_same_prompts_whatever_else_is_asked(noisy):
    whole = {a.prompt_id: a.response for a in noisy(errors={"a": 0.3})(noisy.requests).annotations}
    some = {a.prompt_id: a.response for a in noisy(errors={"a": 0.3})(noisy.requests[100:120]).annotations}
    assert some == {key: whole[key] for key in some}
    assert whole != {a.prompt_id: a.response for a in noisy(errors={"a": 0.3}, seed=1)(noisy.requests).annotations}


def test_skips_are_free(noisy):
    batch = noisy(errors={"a": 0.0}, skips=0.25)(noisy.requests)
    skipped = sum(a.kind == "skip" for a in batch.annotations)
    assert 70 < skipped < 130
    assert batch.cost.labels == 400 - skipped


def test_one_answer_for_all_prompts_leaves_no_wrong_one(tmp_path):
    pq.write_table(pa.table({"id": ["a", "b"], "response": ["yes", "yes"]}), tmp_path / "v.parquet")
    with pytest.raises(DataError, match="there is no wrong one"):
        Noisy(vault=tmp_path / "v.parquet", journal=tmp_path / "j.jsonl", errors={"x": 1.0})(requests("a"))


def test_more_judgements_than_annotators_are_refused(noisy):
    with pytest.raises(ConfigError, match="3 judgements a prompt need as many annotators"):
        noisy(per_item=3)


def test_the_files_of_a_hand_off_are_plain_json_lines(tmp_path):
    with pytest.raises(AwaitingAnnotations):
        Human(run=tmp_path)(requests("é", number=0))
    raw = (tmp_path / "handoff/round-000/requests.jsonl").read_text(encoding="utf-8")
    assert json.loads(raw)["id"] == "é" and "é" in raw


# -- people and a machine --------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(noisy, tmp_path):
    """mixed(**options): people, and a machine that errs on a third of the prompts."""

    def make(**options):
        part = {"share": 0.5, "probe": 0.2, "quota": 4, "machine": {"use": "noisy", "errors": {"machine": 0.33}}} | options
        return Mixed(run=tmp_path, vault=tmp_path / "vault.parquet", journal=tmp_path / "journal.jsonl", **part)

    make.requests = [replace(r, drafts=("a draft",)) for r in noisy.requests[:40]]
    make.gold = noisy.gold
    return make


def asked_of_people(folder):
    return [line["id"] for line in handoff.requests(folder)]


def test_people_are_asked_the_rest_and_the_probes_and_the_machine_is_not_asked_twice(mixed, tmp_path):
    folder = handoff.folder(tmp_path, 1)
    for _ in range(2):
        with pytest.raises(AwaitingAnnotations):
            mixed()(mixed.requests)
        journal = (tmp_path / "journal.jsonl").read_text().splitlines()
        assert len(journal) == 20 and len(asked_of_people(folder)) == 20 + 4
    probes = {json.loads(line)["id"] for line in journal} & set(asked_of_people(folder))
    assert len(probes) == 4
    assert {line["id"] for line in handoff.requests(folder) if not line["drafts"]} == probes


def test_a_kill_between_the_machine_and_the_people_does_not_draw_anew(mixed, tmp_path):
    with pytest.raises(AwaitingAnnotations):
        mixed()(mixed.requests)
    folder = handoff.folder(tmp_path, 1)
    before = folder.joinpath("machine.jsonl").read_bytes(), folder.joinpath("requests.jsonl").read_bytes()
    (folder / "requests.jsonl").unlink()
    with pytest.raises(AwaitingAnnotations):
        mixed()(mixed.requests)
    assert (folder.joinpath("machine.jsonl").read_bytes(), folder.joinpath("requests.jsonl").read_bytes()) == before


def test_a_probe_is_paid_twice_and_the_answer_of_people_is_kept(mixed, tmp_path):
    with pytest.raises(AwaitingAnnotations):
        mixed(machine={"use": "noisy", "errors": {"machine": 1.0}})(mixed.requests)
    folder = handoff.folder(tmp_path, 1)
    answer(folder, *((key, "anna", mixed.gold[key]) for key in asked_of_people(folder)))
    batch = mixed(machine={"use": "noisy", "errors": {"machine": 1.0}})(mixed.requests)
    assert batch.cost.labels == 44
    assert [a.prompt_id for a in batch.annotations] == [r.prompt.id for r in mixed.requests]
    right = {a.prompt_id for a in batch.annotations if a.response == mixed.gold[a.prompt_id]}
    assert right == set(asked_of_people(folder))
    assert [any(p.response == a.response for p in people) for a, people in machine_probes([folder])] == [False] * 4


def test_probes_never_exceed_what_the_budget_has_for_them(mixed, tmp_path):
    for number in (1, 2, 3):
        with pytest.raises(AwaitingAnnotations):
            mixed(probe=1.0)([replace(r, round=number) for r in mixed.requests[13 * (number - 1) : 13 * number]])
    lines = [line for number in (1, 2, 3) for line in handoff.lines(handoff.folder(tmp_path, number) / "machine.jsonl")]
    assert sum(line.get("probe", False) for line in lines) == 4


def test_the_dev_set_is_for_people_alone(mixed, tmp_path):
    with pytest.raises(AwaitingAnnotations, match="the dev set waits for 40 of 40"):
        mixed()([replace(r, round=0) for r in mixed.requests])
    assert not (tmp_path / "journal.jsonl").exists()


def test_people_are_no_machine(mixed):
    with pytest.raises(ConfigError, match="'human' waits for people, and is no machine"):
        mixed(machine="human")
