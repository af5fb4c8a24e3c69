"""The shadow arm: its sample is a simple random one whatever the strategy does, it costs nothing beyond the budget, and arms are compared like with like."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest

from outlay import results, slices
from outlay.errors import AwaitingAnnotations, ConfigError
from outlay.measure.contrasts import single
from outlay.oracles import handoff
from outlay.real import add, finish, flow, plan, setup, shadow, status
from outlay.real.state import state_of
from outlay.seeds import generator, lottery
from outlay.store import Store
from outlay.types import Evaluation, Selection

from . import stopping
from . import test_real as real


def config(**changes):
    return real.config(**{"budget": 80, "shadow": 0.3} | changes)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The run directory of a campaign whose rounds are done, not to be changed. Two prompts of the first batch are skipped, one of them random."""
    root = tmp_path_factory.mktemp("shadow") / "people"
    with pytest.raises(AwaitingAnnotations):
        real.go(config(), root)
    first = chosen_in(root)[0].ids
    real.complete(config(), root, skip=frozenset([first[0], first[-1]]))
    return root


@pytest.fixture(scope="module")
def ended(done, tmp_path_factory):
    """(the run directory of the same campaign after `finish`, what that said)."""
    root = shutil.copytree(done, tmp_path_factory.mktemp("finished") / "people")
    said = []
    finish.finish(root, said.append)
    return root, said


@pytest.fixture(scope="module")
def finished(ended):
    return ended[0]


def chosen_in(root):
    """The selection of each round that has one."""
    live = setup.opened(root)
    return [Store(root).read(f"{folder}/selection.json", Selection) for folder in live.folders if (root / folder / "selection.json").exists()]


# -- the random sample -----------------------------------------------------------------------------------------------------


def campaigns(desk, campaign, count):
    """How often each prompt was in the random part of what was bought, over simulated campaigns of a strategy that likes the first thirty
    prompts best, but what lies beside a random one even more. -> (n,) with a shadow arm, (n,) of slices that are drawn from what is left."""
    n = len(desk.pool)
    found = {True: np.zeros(n), False: np.zeros(n)}
    for fixed, times in found.items():
        for seed in range(count):
            here, taken, random = replace(desk, audit=0.4, shadow=fixed), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
            run = replace(campaign, seed=seed)
            for number, k in enumerate(run.sizes, 1):
                part = slices.draw(here, run, np.flatnonzero(~taken), number, k)
                assert not taken[part].any() and len(part) < k
                random[part], taken[part] = True, True
                taste = (np.arange(n) < 30) + 2 * np.roll(random, 1)
                wish = [row for row in np.argsort(-taste, kind="stable") if not taken[row]]
                taken[wish[: k - len(part)]] = True
                if fixed:
                    sample = slices.sample(seed, desk.pool.ids, 0.4, run.sizes[:number])
                    assert taken[sample].all()  # bought, by whomever
            times += np.isin(np.arange(n), sample) if fixed else random
    return found[True], found[False]


def test_every_prompt_is_as_often_in_the_random_sample_whatever_the_strategy_prefers(done):
    live = setup.opened(done)
    count = 300
    fixed, from_what_is_left = campaigns(flow._desk(live), live.campaign, count)
    share = fixed.sum() / count / len(fixed)
    liked = fixed[:30].sum() / count / 30
    assert abs(liked - share) < 3 * np.sqrt(share * (1 - share) / (30 * count))
    assert (fixed / count).std() < 1.3 * np.sqrt(share * (1 - share) / count)
    assert from_what_is_left[:30].sum() / count / 30 < 0.85 * from_what_is_left.sum() / count / len(fixed)  # what a slice of what is left would be


def test_a_prompt_of_the_sample_that_the_strategy_took_is_not_paid_again_and_its_place_goes_to_the_strategy(done):
    live, selections = setup.opened(done), chosen_in(done)
    asked = [line["id"] for folder in sorted((done / "handoff").glob("round-*")) for line in handoff.requests(folder)]
    assert len(asked) == len(set(asked)) == 80 + 2  # two were skipped
    assert state_of(live).paid == 80
    ids = [live.bench.pool().ids[row] for row in live.bench.rows(0)]
    planned = list(accumulate(slices.size(0.4, k) for k in live.campaign.sizes))
    assert planned == [10, 20, 30] and [len(s.ids) for s in selections] == [24, 24, 24]
    before: set[str] = set()
    for selection, n in zip(selections, planned, strict=True):
        sample = [ids[row] for row in np.argsort(lottery(0, ids, "shadow"))[:n]]
        assert selection.ids[len(selection.ids) - selection.audit :] == tuple(key for key in sample if key not in before)
        before |= set(selection.ids)
        assert set(sample) <= before
    assert sum(s.audit for s in selections) < 30


def test_the_shadow_arms_prompts_are_graded_for_the_audit_before_they_are_trained_on(done):
    rounds = state_of(setup.opened(done)).rounds
    assert [s.sliced for s in rounds] == [c.audit - (number == 0) for number, c in enumerate(chosen_in(done))]
    assert all(s.audit.left.n == s.sliced for s in rounds)


# -- the comparison --------------------------------------------------------------------------------------------------------


def test_both_arms_have_equally_many_labels_and_no_chosen_prompt_was_drawn_by_chance(finished):
    live = setup.opened(finished)
    lessons = Store(finished).read(f"{live.folders[2]}/shadow.json", shadow.Lessons)
    assert len(lessons.random) == len(set(lessons.random)) == len(lessons.chosen) == len(set(lessons.chosen)) == 29  # of 30, one was skipped
    by_chance = {key for s in chosen_in(finished) for key in s.ids[len(s.ids) - s.audit :]}
    assert not by_chance & set(lessons.chosen) and by_chance - set(lessons.random)  # the skipped one
    taken_by_the_strategy = set(lessons.random) - by_chance
    assert taken_by_the_strategy
    random, chosen = shadow.samples(live, 3)
    assert {a.prompt_id for a in chosen} >= taken_by_the_strategy and [a.prompt_id for a in random] == list(lessons.random)
    assert all(a.response == real.GOLD[a.prompt_id] for a in random + chosen)


def test_what_is_compared_are_models_trained_on_these_labels_and_graded_on_the_dev_set(finished, tmp_path):
    live = setup.opened(finished)
    folder, store = live.folders[2], Store(finished)
    desk = live.bench.desk(live.campaign, list(live.folders), 3)
    for name, part in zip(shadow.ARMS, shadow.samples(live, 3), strict=True):
        for file, lesson in ((name, part[:29]), (f"{name}-1", part[1:29:4])):
            lesson = sorted(lesson, key=lambda a: a.prompt_id)
            prompts = desk.pool.at(desk.pool.rows_of(a.prompt_id for a in lesson))
            model = desk.trainer(desk.base, prompts, lesson, tmp_path / file, seed=shadow.seeds.seed(0, "train"))
            again, kept = live.grade(model, setup.DEV_TABLE, "dev"), store.read(f"{folder}/shadow/{file}.parquet", Evaluation)
            assert kept.columns["nll"].tolist() == again.columns["nll"].tolist() and kept.cost == again.cost + model.cost
    found = shadow.comparison(live)
    assert (found.round, found.labels, found.difference.n) == (3, 29, 8)


def test_a_comparison_that_was_cut_off_at_every_file_ends_with_the_same_bytes_and_leaves_no_weights(done, finished, tmp_path, monkeypatch):
    root = shutil.copytree(done, tmp_path / "people")
    cuts = 0
    for _ in range(30):
        try:
            with stopping.after(1, monkeypatch):
                finish.finish(root)
            break
        except stopping.Stop:
            cuts += 1
    assert cuts == 10
    assert real.content(root) == real.content(finished)
    assert not [p for p in (root / setup.opened(root).folders[2] / "shadow").iterdir() if p.suffix != ".parquet"]


def test_the_comparison_is_measurement_and_the_rest_of_the_ledger_stays(done, finished):
    before, after = results.ledger(done), results.ledger(finished)
    new = after[after["stage"] == "shadow"]
    assert (new["phase"].tolist(), new["round"].tolist()) == (["measure"], [3])
    assert new["trained_tokens"].iloc[0] == 2 * 2 * 2 * 29 * 4  # epochs, all and in parts, arms, words of a prompt
    assert after[after["stage"] != "shadow"].reset_index(drop=True).equals(before)


def test_each_round_is_compared_where_that_is_asked_for_also_of_a_campaign_that_has_begun(done, tmp_path):
    root = shutil.copytree(done, tmp_path / "people")
    assert "`outlay campaign finish`, from 8 answers of each kind on" in status.verdict(state_of(setup.opened(root)))
    said = real.go(config(shadow_each_round=True), root)
    assert said == [f"shadow arm: 10 trainings, of {labels} labels or a quarter of them" for labels in (9, 19, 29)]
    assert "by the shadow arm after round 3, at equal numbers of labels (29 each)" in status.verdict(state_of(setup.opened(root)))
    assert real.go(config(shadow_each_round=True), root) == []


@pytest.mark.slow
def test_too_few_answers_are_not_compared_and_finish_does_not_fail_for_it(tmp_path):
    asked = config(budget=12, rounds=1, dev_share=0, dev_set=real.TEST)
    real.complete(asked, tmp_path)
    said = []
    finish.finish(tmp_path, said.append)
    assert said == [] and shadow.comparison(setup.opened(tmp_path)) is None and not list(tmp_path.rglob("shadow*"))


# -- the verdict -----------------------------------------------------------------------------------------------------------


def compared(chosen, random):
    """What is said where models of the two arms are right on these shares of 200 items."""
    rng = generator(0, "test", "verdict")
    right = {name: rng.random((5, 200)) < share for name, share in (("chosen", chosen), ("random", random))}
    difference = single(right["chosen"][0], right["random"][0], right["chosen"][1:], right["random"][1:])
    return shadow.Comparison(4, 60, float(right["random"][0].mean()), float(right["chosen"][0].mean()), difference).words("badge")


@pytest.mark.parametrize(
    ("chosen", "random", "says"),
    [(0.9, 0.5, "badge is worth it: "), (0.5, 0.9, "badge is not worth it, random prompts teach more: "), (0.7, 0.7, "cannot tell whether badge teaches more than random: ")],
)
def test_the_verdict_follows_the_interval_and_names_labels_and_items(chosen, random, says):
    said = compared(chosen, random)
    assert said.startswith(says) and "at equal numbers of labels (60 each)" in said and "(n = 200)" in said


def test_status_report_and_finish_say_the_same_verdict(ended):
    root, said = ended
    verdict = status.verdict(state_of(setup.opened(root)))
    assert said == ["shadow arm: 10 trainings, of 29 labels or a quarter of them", verdict] and "by the shadow arm after round 3" in verdict
    assert verdict in (root / "final/report.html").read_text(encoding="utf-8")


# -- plan and refusals -----------------------------------------------------------------------------------------------------


def test_the_plan_counts_random_prompts_inside_of_the_budget_and_says_what_the_comparison_takes(tmp_path):
    said = list(plan.lines(config(), tmp_path))
    assert "dev set 8, random slices up to 30, chosen at least 42" in said[1]
    assert said[2] == "shadow arm: 10 trainings, of 30 labels or a quarter of them, by finish"
    assert not any(line.startswith("shadow arm") for line in plan.lines(real.config(), tmp_path))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shadow": 0.45}, r"audit_share and shadow leave 45% of each batch to the strategy; .* \(they are 0.1 and 0.45\)"),
        ({"shadow": 1.0}, "shadow: .* less than 1"),
        ({"dev_share": 0}, "compared on a dev set: set dev_share above 0, or name a labelled dev_set"),
        ({"strategy": "random"}, "the strategy is random: set shadow to 0"),
        ({"judgements": "preferences", "dev_share": 0, "audit_share": 0, "dev_set": real.TEST}, "preferences are between drafts of the round's own model: set shadow to 0"),
        ({"budget": {"minutes": 30}}, "the budget is in minutes; give a number of judgements"),
        ({"audit_share": 0, "budget": 4}, r"no room for a random slice \(batches: \[1, 1, 1\]\); ask for fewer rounds or set shadow to 0"),
        ({"shadow": 0, "shadow_each_round": True}, "there is no shadow arm; set shadow to"),
    ],
)
def test_a_shadow_arm_that_cannot_be_compared_is_refused_in_one_line(change, says):
    with pytest.raises(ConfigError, match=says) as refused:
        config(**change)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_people_and_a_machine_answer_for_a_shadow_arm_within_the_budget(tmp_path):
    asked = config(oracle={"use": "mixed", "machine": {"use": "noisy", "errors": {"machine": 0.0}}, "share": 0.6, "probe": 0.5})
    real.complete(asked, tmp_path)
    finish.finish(tmp_path)
    live = setup.opened(tmp_path)
    assert state_of(live).paid <= 80 and shadow.comparison(live).labels == sum(slices.size(0.4, k) for k in live.campaign.sizes)


def test_new_prompts_are_refused_where_the_random_sample_is_of_the_pool_of_the_start(done):
    with pytest.raises(ConfigError, match="has a shadow arm, whose random sample is drawn from the pool of the start"):
        add.add(config(), done, dry_run=True)
