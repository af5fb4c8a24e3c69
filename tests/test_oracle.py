"""Gold answers stay in the vault until they are paid for, once each."""

import gc
import json
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from outlay import campaign, registry, workbench
from outlay.config import StudyConfig
from outlay.errors import ConfigError, DataError
from outlay.oracles import chat
from outlay.oracles import journal as journals
from outlay.oracles.replay import Replay, read_journal
from outlay.store import Store
from outlay.types import Prompt, Request, View


@pytest.fixture
def oracle(tmp_path):
    answers = [f"gold-{i}\u2028ü" for i in range(20)] + ["", " "]
    pq.write_table(pa.table({"id": [f"p{i}" for i in range(22)], "response": answers}), tmp_path / "vault.parquet")
    return Replay(vault=tmp_path / "vault.parquet", journal=tmp_path / "c" / "reveals.jsonl")


def ask(oracle, *rows):
    return oracle([Request(Prompt(f"p{i}", f"text {i}")) for i in rows])


def journal(oracle):
    return [json.loads(line)["id"] for line in oracle.journal.read_text().split("\n")[:-1]]


def test_answers_come_in_the_order_of_the_requests(oracle):
    batch = ask(oracle, 7, 2, 19)
    assert [(a.prompt_id, a.response, a.kind) for a in batch.annotations] == [(f"p{i}", f"gold-{i}\u2028ü", "response") for i in (7, 2, 19)]
    assert batch.cost.labels == 3


def test_only_what_was_asked_is_revealed(oracle):
    ask(oracle, 7, 2)
    assert journal(oracle) == ["p7", "p2"]
    assert "gold-3" not in oracle.journal.read_text()


def test_an_answer_is_bought_once_however_often_it_is_asked(oracle):
    first, again = ask(oracle, 7, 2), ask(oracle, 2, 7, 3)
    assert journal(oracle) == ["p7", "p2", "p3"]
    assert again.annotations[:2] == first.annotations[::-1]


def test_what_is_in_the_journal_is_not_asked_of_the_vault(oracle):
    first = ask(oracle, 7, 2)
    oracle.vault.unlink()
    assert ask(oracle, 7, 2) == first


def test_the_journal_is_on_the_disk_before_the_answer_is_used(oracle, monkeypatch):
    synced = []
    monkeypatch.setattr(journals.os, "fsync", lambda _: synced.append(journal(oracle)))
    ask(oracle, 1, 2)
    assert synced == [["p1", "p2"]]


@pytest.mark.parametrize("left", range(1, 12))
def test_a_last_line_that_a_kill_cut_in_half_is_bought_again(oracle, left):
    ask(oracle, 7, 2)
    raw = oracle.journal.read_bytes()
    oracle.journal.write_bytes(raw[: -left * 3])  # also through the middle of a character of several bytes
    assert [a.response for a in ask(oracle, 7, 2).annotations] == ["gold-7\u2028ü", "gold-2\u2028ü"]
    assert oracle.journal.read_bytes() == raw


def test_a_damaged_journal_is_named(oracle):
    ask(oracle, 7, 2)
    oracle.journal.write_bytes(b"\0\0\0" + oracle.journal.read_bytes())
    with pytest.raises(DataError, match=r"reveals\.jsonl is damaged .*restore it"):
        ask(oracle, 7)


@pytest.mark.parametrize("row", [20, 21, 99])
def test_a_prompt_without_a_gold_answer_is_named_and_nothing_is_revealed(oracle, row):
    with pytest.raises(DataError, match=f"prompt 'p{row}' has no gold answer"):
        ask(oracle, 1, row)
    assert read_journal(oracle.journal) == {}


# -- an LLM; what needs a server is in slow/test_oracle_llm.py --------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base_url": "ftp://x"}, "an http or https address"),
        ({"base_url": "http://u:p@127.0.0.1"}, "without a password"),
        ({"base_url": "http://example.org/v1"}, "unencrypted; use https"),
        ({"max_usd": 1.0}, "set usd_in and usd_out"),
        ({"workers": 0}, "'workers' = 0"),
        ({"worker": 2}, "did you mean 'workers'"),
    ],
)
def test_options_of_an_llm_that_make_no_sense_are_named(options, says, tmp_path):
    with pytest.raises(ConfigError, match=says):
        registry.build("oracle", {"use": "llm", "base_url": "https://127.0.0.1/v1", "model": "m", **options}, journal=tmp_path / "j")


@pytest.mark.parametrize(("value", "low", "high"), [("7", 7, 7), ("-3", 0, 0), ("soon", 0, 0), (None, 0, 0), ("inf", 0, 0), ("Wed, 21 Oct 2099 07:28:00 GMT", 1e8, 1e11)])
def test_retry_after_is_seconds_or_a_date(value, low, high):
    assert low <= chat._asked_wait(value) <= high


# -- strategies ------------------------------------------------------------------------------------------------------------


def reachable(root):
    """Every object that can be reached from data: through attributes, containers and closures, not through code."""
    seen, todo = {}, [root]
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, type | types.ModuleType | types.BuiltinFunctionType | types.CodeType):
            continue
        seen[id(item)] = item
        todo += [cell.cell_contents for cell in item.__closure__ or ()] if isinstance(item, types.FunctionType) else gc.get_referents(item)
        if isinstance(item, np.ndarray) and item.base is not None:
            todo.append(item.base)
    return seen.values()


def test_nothing_that_can_be_reached_from_a_view_holds_an_answer_a_prompt_or_a_model(toy_run, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", registry._Registry(dict(registry._REGISTRY.cards), set(registry.HOMES)))
    answers = {row["id"]: row["response"] for row in pq.read_table(toy_run / "shared/vault.parquet").to_pylist()}
    store = Store(toy_run)
    study = store.read("study.json", dict)
    bench = workbench.Workbench(store, study, StudyConfig.model_validate(study["config"]))
    texts = set(bench.pool().texts)
    looked = []

    @registry.strategy(needs=("mean_entropy",), source="none", reads_groups=True)
    def spy(view: View, k, rng):
        found = set()
        for item in reachable(view):
            assert not isinstance(item, Prompt | pa.Table | campaign.Desk | Replay), item
            if isinstance(item, str):
                found.add(item)
            elif isinstance(item, np.ndarray) and item.dtype.kind in "UO":
                found.update(map(str, item.ravel()))
        assert not found & texts
        assert not found & set(answers.values())
        looked.append(len(found))
        return view.unlabeled[:k]

    plan = campaign.Campaign("spy", 2, 6)
    desk = bench.desk(plan, ["a", "b"], 2)
    parts = {"store": Store(tmp_path), "oracle": Replay(vault=toy_run / "shared/vault.parquet", journal=tmp_path / "reveals.jsonl")}
    assert len(list(campaign.run(plan, workbench.replace(desk, **parts)))) == 2
    assert len(looked) == 2
    assert min(looked) > 5  # it saw the groups: the search does find strings


def test_the_search_would_find_an_answer_behind_a_closure(oracle):
    secret = "gold-" + str(len("secret"))

    def peek():
        return secret

    assert any(item == "gold-6" for item in reachable({"deep": [(peek,)]}) if isinstance(item, str))
