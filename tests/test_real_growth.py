"""Prompts that are added to a campaign that has begun: earlier rounds stay, later ones may buy them, and estimates stay right."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest

from outlay import growth
from outlay.errors import AwaitingAnnotations, ConfigError, DataError, RunConflict
from outlay.measure import audit
from outlay.oracles import handoff
from outlay.real import add, finish, setup, status
from outlay.real.state import state_of
from outlay.seeds import generator
from outlay.store import Store
from outlay.toy import ToyPool
from outlay.types import Selection

from . import stopping
from . import test_real as real

ROWS = [{"key": f"k{number}", "prompt": row["text"], "answer": row["response"]} for number, row in enumerate(ToyPool(size=130)().to_pylist())]
OLD, NEW = ROWS[:90], ROWS[90:]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """(save a pool file, its campaign's config, its run directory)."""
    monkeypatch.setattr(real, "GOLD", {row["key"]: row["answer"] for row in ROWS})
    file = tmp_path / "pool.jsonl"

    def save(rows):
        file.write_text("".join(json.dumps({"key": r["key"], "prompt": r["prompt"]}) + "\n" for r in rows))

    save(OLD)
    return save, real.config(pool={"use": "file", "path": str(file), "id": "key", "response": None}, shard=40), tmp_path / "run"


def begin(asked, root, **people):
    """Until the first round waits for people; they answer."""
    with pytest.raises(AwaitingAnnotations):
        real.go(asked, root)
    real.give(root, **people)


def bought(root):
    """Ids that each round's strategy and slice chose."""
    live = setup.opened(root)
    return [Store(root).read(f"{folder}/selection.json", Selection).ids for folder in live.folders if (root / folder / "selection.json").exists()]


def test_added_prompts_are_bought_from_the_next_round_on_and_all_before_stays_as_it_was(place):
    save, asked, root = place
    begin(asked, root)
    before, dev = real.content(root), [p.id for p in setup.opened(root).dev_prompts()]
    save([*NEW[:20], *OLD[::-1], *NEW[20:]])  # wherever they stand
    said = add.add(asked, root)
    assert "added: 40 prompts are new, e.g. 'k90'; 90 are there and unchanged. The pool has 130 prompts, and rounds from 2 on may buy them" in said
    real.complete(asked, root)
    after = real.content(root)
    assert {path: after[path] for path in before} == before
    first, *later = bought(root)
    assert [p.id for p in setup.opened(root).dev_prompts()] == dev
    new = {row["key"] for row in NEW}
    assert not new & set(first) and len(new & {key for ids in later for key in ids}) >= 3
    state = state_of(setup.opened(root))
    assert [s.audit.share_left for s in state.rounds] == pytest.approx([1, (85 + 40 - 12) / (85 + 40), (85 + 40 - 24) / (85 + 40)])
    finish.finish(root)
    rows = [json.loads(line) for line in (root / "final/dataset/provenance.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows if "added" in row} == new & {row["id"] for row in rows}
    assert any("pool: 90 prompts at the start, 40 added at" in line and "the dev set is of the prompts of the start" in line for line in status.lines(state, "c"))


def test_places_skipped_in_an_open_round_are_asked_again_from_the_pool_that_it_began_with(place):
    save, asked, root = place
    with pytest.raises(AwaitingAnnotations):
        real.go(asked, root)
    real.give(root, skip=frozenset(bought(root)[0][:6]))
    save(ROWS)
    add.add(asked, root)
    with pytest.raises(AwaitingAnnotations):
        real.go(asked, root)
    again = {line["id"] for line in handoff.requests(handoff.folder(root, 1))}
    assert len(again) == 12 + 6 and again <= {row["key"] for row in OLD}


def test_a_campaign_that_was_cut_off_at_every_write_and_grew_ends_with_the_same_bytes(place, monkeypatch):
    save, asked, root = place

    def run(home, stage):
        with contextlib.suppress(AwaitingAnnotations):
            stage(asked, home)

    def cut(home, stage):
        """Killed at its first write, then at its second one, ..."""
        for allowed in range(60):
            with contextlib.suppress(stopping.Stop), stopping.after(allowed, monkeypatch, setup, add):
                return run(home, stage)
        pytest.fail("it never ended")

    def grow(asked, home):
        save(ROWS)
        add.add(asked, home)

    ends = []
    for home, do in ((root / "whole", run), (root / "cut", cut)):
        save(OLD)
        for stage in (real.go, grow, real.go, real.go):
            do(home, stage)
            real.give(home)
        do(home, real.go)
        assert state_of(setup.opened(home)).finished
        ends.append({path: digest for path, digest in real.content(home).items() if path != growth.RECORD})
        assert [(a.round, a.before, a.prompts) for a in growth.additions(home)] == [(2, 90, 40)]
    assert ends[0] == ends[1]


def test_anything_but_new_prompts_is_refused_and_changes_nothing(place):
    save, asked, root = place
    begin(asked, root)
    before = real.content(root)
    save([*OLD[:3], OLD[3] | {"prompt": OLD[3]["prompt"] + " please"}, *OLD[5:], *NEW])
    with pytest.raises(RunConflict, match=r"only new prompts can be added .* 40 prompts are new, e\.g\. 'k90', 1 prompt is gone, e\.g\. 'k4', 1 prompt is with another text"):
        add.add(asked, root)
    save(ROWS)
    with pytest.raises(RunConflict, match=r"40 prompts are new, e\.g\. 'k90'; `outlay campaign add .*` takes new prompts in"):
        real.go(asked, root)
    assert "would be added: 40 prompts are new" in add.add(asked, root, dry_run=True)
    assert real.content(root) == before


def test_adding_the_same_again_adds_nothing_and_a_later_change_is_refused(place):
    save, asked, root = place
    begin(asked, root)
    save(ROWS)
    add.add(asked, root)
    before = real.content(root)
    assert "there is no new prompt in the pool" in add.add(asked, root)
    assert real.content(root) == before
    save(ROWS[:-1])
    with pytest.raises(RunConflict, match=r"1 prompt is gone, e\.g\. 'k129'; restore it"):
        real.go(asked, root)


def test_a_prompt_of_the_dev_set_is_not_added_under_another_id(place):
    save, asked, root = place
    begin(asked, root)
    dev = setup.opened(root).dev_prompts()[0].text
    save([*OLD, {"key": "again", "prompt": dev}])
    with pytest.raises(DataError, match="the bought dev set"):
        add.add(asked, root)


def test_nothing_is_added_when_no_round_is_left_to_buy_it(place):
    save, asked, root = place
    asked = asked.model_copy(update={"rounds": 1})
    begin(asked, root)
    save(ROWS)
    with pytest.raises(ConfigError, match=r"all 1 rounds of .* have begun"):
        add.add(asked, root)


def test_the_random_slice_stays_unbiased_when_hard_prompts_are_added():
    rng, errors = generator(0, "test", "growth"), []
    for _ in range(200):
        hard = np.concatenate([rng.random(200), rng.random(200) * 0.5 + 0.5])  # those added are harder
        asked, before = np.zeros(400, dtype=bool), []
        for reach in (200, 400, 400):
            right = rng.random(400) > hard
            left = np.flatnonzero(~asked[:reach])
            sample = rng.choice(left, 8, replace=False)
            picks = [row for row in left[np.argsort(-hard[left])] if row not in set(sample)][:40]
            found = audit.audit(right[sample], np.array(before), len(left))
            errors.append(found.whole.mean - (np.sum(before) + right[left].sum()) / reach)
            before += list(right[[*picks, *sample]])
            asked[[*picks, *sample]] = True
    last = np.array(errors).reshape(-1, 3)
    assert (abs(last.mean(axis=0)) < 3 * last.std(axis=0) / np.sqrt(len(last))).all()
