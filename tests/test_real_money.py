"""Budgets in minutes or dollars: predictions come right, and no campaign spends more than the rule allows."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.errors import AwaitingAnnotations, ConfigError
from outlay.measure import effort
from outlay.oracles import handoff
from outlay.purse import Purse, batch
from outlay.real import plan, setup, status
from outlay.real.state import state_of
from outlay.seeds import generator
from outlay.store import Store
from outlay.types import Batch, Selection

from . import test_real as real

TIMED = {"use": "noisy", "errors": {"anna": 0.0}, "seconds": 20.0, "per_100_characters": 60.0, "spread": 0.8}


def config(**changes):
    return real.config(**{"budget": {"minutes": 30}, "effort": {"seconds": 60}, "oracle": TIMED, "annotators": {"people": 1}} | changes)


# -- prediction ------------------------------------------------------------------------------------------------------------


def times(rng, n, spread=1.0):
    """Skewed times that grow with the length: (lengths, seconds)."""
    lengths = np.column_stack([rng.integers(20, 2000, n), np.zeros(n)]).astype(float)
    return lengths, (10 + lengths[:, 0] / 10) * np.exp(spread * rng.standard_normal(n) - spread**2 / 2)


def test_without_answers_the_assumption_is_what_is_predicted_and_it_gives_way_to_them():
    lengths, taken = times(generator(0, "test", "effort"), 400)
    assumed = np.full(400, 20.0)  # a sixth of the truth
    fit = effort.assumption(lengths)
    assert fit.costs(lengths, assumed) == pytest.approx(assumed)
    off = [abs(effort.learn(fit, lengths[:n], taken[:n], assumed[:n]).costs(lengths, assumed).sum() / taken.sum() - 1) for n in (0, 1, 400)]
    assert off[0] > off[1] > off[2] and off[2] < 0.1


def test_the_sum_of_skewed_times_is_not_underestimated_as_a_median_would():
    rng, assumed, found = generator(1, "test", "effort"), np.full(200, 100.0), []
    for _ in range(40):
        lengths, taken = times(rng, 200)
        found.append(effort.learn(effort.assumption(lengths), lengths, taken, assumed).costs(lengths, assumed).sum() / taken.sum())
    assert np.mean(found) == pytest.approx(1, abs=0.06)


def test_one_who_left_the_desk_for_a_night_does_not_set_the_pace():
    lengths, taken = times(generator(2, "test", "effort"), 40)
    assumed, fit = np.full(40, 100.0), effort.assumption(lengths)
    calm = effort.learn(fit, lengths, taken, assumed).costs(lengths, assumed).mean()
    taken[0] = 8 * 3600.0
    assert effort.learn(fit, lengths, taken, assumed).costs(lengths, assumed).mean() < 1.6 * calm < taken.mean()


def test_the_interval_of_a_batch_covers_what_it_takes():
    rng, inside = generator(3, "test", "effort"), []
    for _ in range(150):
        lengths, taken = times(rng, 90, spread=0.7)
        assumed = np.full(90, 150.0)
        total = effort.learn(effort.assumption(lengths), lengths[:30], taken[:30], assumed[:30]).total(lengths[30:], assumed[30:])
        inside.append(total.low <= taken[30:].sum() <= total.high)
    assert np.mean(inside) >= 0.9


# -- the batch that a share pays -------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=40), st.floats(-5, 400), st.floats(0, 400), st.integers(1, 40), st.booleans())
def test_a_batch_is_predicted_to_cost_at_most_its_share_and_wastes_none_that_would_fit(costs, share, more, first, nested):
    costs = np.array(costs)
    purse = Purse(share, share + more, costs, lambda annotations: 0.0)

    def choose(k):
        rows = np.arange(k) if nested else np.random.default_rng(k).permutation(len(costs))[:k]
        return Selection("any", tuple(map(str, rows)))

    found = batch(purse, min(first, len(costs)), len(costs), choose, lambda ids: np.array([int(i) for i in ids]))
    cost = sum(costs[int(i)] for i in found.ids) if found else 0.0
    assert found is None or cost <= share or (len(found.ids) == 1 and cost <= purse.limit)
    if nested and found is None:
        assert costs[0] > purse.limit
    elif nested:
        assert len(found.ids) == len(costs) or cost + costs[len(found.ids)] > share


# -- whole campaigns -------------------------------------------------------------------------------------------------------


def audited(root: Path) -> tuple[float, float]:
    """(what was spent above the budget less its reserve, the error of the last batch's prediction), after checking every round's books."""
    live = setup.opened(root)
    ledger, last, spent = live.ledger, 0.0, live.ledger.spent(0, live.ledger.fit(1))
    for number, folder in enumerate(live.folders, 1):
        if not (root / folder / "batch.json").exists():
            break
        given, rows = ledger.share(number), live.bench.pool()
        asked = [i for name in ("selection", "selection-again") if (root / folder / f"{name}.json").exists() for i in live.store.read(f"{folder}/{name}.json", Selection).ids]
        first = live.store.read(f"{folder}/selection.json", Selection).ids
        predicted = ledger.costs(given.fit, rows.rows_of(first)).sum()
        assert predicted <= given.share + 1e-9 or (len(first) == 1 and predicted <= given.limit)
        assert given.spent == pytest.approx(spent) and given.limit == pytest.approx(ledger.total.amount * (1 - ledger.total.reserve) - spent)
        real_cost = ledger.spent(number, given.fit)
        assert len(asked) == len(set(asked))
        spent, last = spent + real_cost, real_cost - predicted
    return spent - ledger.total.amount * (1 - ledger.total.reserve), last


@pytest.mark.parametrize(("seed", "changes"), [
    (0, {}), (1, {"strategy": "random", "schedule": "front_loaded"}), (2, {"effort": {"seconds": 5}, "budget": {"minutes": 6, "reserve": 0.1}}), (3, {"oracle": {**TIMED, "seconds": 200.0, "skips": 0.2}}),
])  # fmt: skip
def test_a_simulated_campaign_never_spends_more_than_the_error_of_its_last_batch(tmp_path, seed, changes):
    asked = config(**{"seed": seed} | changes)
    real.go(asked, tmp_path)
    over, error = audited(tmp_path)
    assert over <= max(error, 0) + 1e-9
    state = state_of(setup.opened(tmp_path))
    assert state.finished
    if seed == 0:
        assert over > -5  # and it does spend what it has


def test_a_campaign_in_minutes_that_was_cut_off_at_every_stage_has_the_same_sizes(tmp_path, monkeypatch):
    asked = config(rounds=2)
    real.go(asked, tmp_path / "whole")
    write = Store.write
    for allowed in range(80):
        left = [allowed]

        def cut(self, path, record, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            write(self, path, record)

        with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
            patched.setattr(Store, "write", cut)
            real.go(asked, tmp_path / "cut")
            break
    assert real.content(tmp_path / "cut") == real.content(tmp_path / "whole")


def test_sizes_follow_what_people_took_and_an_answer_without_a_time_counts_as_predicted(tmp_path):
    asked = config(oracle="human", effort={"seconds": 60}, budget={"minutes": 40})
    for number in range(2):  # test_real.give answers in 12 s, where 60 were assumed
        with pytest.raises(AwaitingAnnotations):
            real.go(asked, tmp_path)
        real.give(tmp_path)
        if number == 0:
            folder = handoff.folder(tmp_path, 1)
            rows = handoff.lines(folder / "annotations.jsonl")
            handoff.write(folder / "annotations.jsonl", [row | {"seconds": 0.0} if i % 2 else row for i, row in enumerate(rows)])
    live = setup.opened(tmp_path)
    sizes = [len(live.store.read(f"{folder}/selection.json", Selection).ids) for folder in live.folders[:2]]
    assert sizes[0] == 12 and sizes[1] > 2 * sizes[0]
    second = live.ledger.share(2)
    timed = live.ledger.spent(0, second.fit) + 6 * 0.2
    guessed = live.ledger.spent(1, second.fit) - 6 * 0.2
    assert second.spent == pytest.approx(timed + guessed) and 0.2 * 6 < guessed < 1.0 * 6
    said = list(status.lines(state_of(live), "c.yaml"))
    assert any(line.startswith("budget: ") and "of 40 minutes spent" in line for line in said)


def test_paid_by_the_piece_a_budget_in_dollars_is_a_number_of_judgements(tmp_path):
    asked = config(budget={"usd": 41.0}, prices={"per_annotation": 2.0}, oracle={"use": "noisy", "errors": {"a": 0.0, "b": 0.0}}, annotators={"people": 2, "per_item": 2}, rounds=2)
    real.go(asked, tmp_path)
    state = state_of(setup.opened(tmp_path))
    assert state.paid == 20 and state.usd == 40.0
    assert "budget: $40.00 of $41.00 spent, for 20 judgements" in status.budget(state)


def test_when_the_money_is_gone_nothing_more_is_bought_and_the_campaign_can_be_finished(tmp_path):
    asked = config(oracle={**TIMED, "seconds": 900.0, "spread": 0.1}, dev_share=0)  # 15 minutes each, where one was assumed
    real.go(asked, tmp_path)
    live = setup.opened(tmp_path)
    state = state_of(live)
    assert state.finished and live.trained() == 1
    before = real.content(tmp_path)
    real.go(asked, tmp_path)
    assert real.content(tmp_path) == before
    assert list(status.lines(state, "c.yaml"))[-1] == "next: `outlay campaign finish c.yaml`"


def test_replacements_for_skipped_prompts_are_paid_from_the_same_share(tmp_path):
    asked = config(oracle="human", budget={"minutes": 30}, dev_share=0, rounds=2)
    with pytest.raises(AwaitingAnnotations):
        real.go(asked, tmp_path)
    live = setup.opened(tmp_path)
    ids = live.store.read(f"{live.folders[0]}/selection.json", Selection).ids
    real.give(tmp_path, skip=frozenset(ids[:6]))
    folder = handoff.folder(tmp_path, 1)
    rows = [row | {"seconds": 92.0} for row in handoff.lines(folder / "annotations.jsonl")]  # 15 of them: 23 minutes of 15
    handoff.write(folder / "annotations.jsonl", rows)
    with pytest.raises(AwaitingAnnotations):
        real.go(asked, tmp_path)
    assert live.store.read(f"{live.folders[0]}/batch.json", Batch).cost.labels == len(ids) - 6
    assert live.store.read(f"{live.folders[0]}/selection-again.json", Selection).ids == ()


def test_by_score_per_cost_a_round_buys_what_brings_the_most_for_a_minute_and_the_money_rule_holds(tmp_path):
    real.go(config(per_cost=True, effort={"seconds": 20, "per_100_characters": 60}, audit_share=0), tmp_path)
    over, error = audited(tmp_path)
    assert over <= max(error, 0) + 1e-9
    live = setup.opened(tmp_path)
    assert "mean_entropy per minute, 3 rounds" in next(status.lines(state_of(live), "c.yaml"))
    assert any("ranked by mean_entropy per minute" in line for line in plan.lines(live.asked, Path("unused")))
    for number, folder in enumerate(live.folders, 1):
        choice, costs = live.store.read(f"{folder}/selection.json", Selection), live.ledger.purse(number).costs
        scores = np.array(choice.scores)
        assert (np.diff(scores) <= 0).all()
        if number == 1:
            worth = live.bench.base_signals()[0].columns["mean_entropy"][live.bench.rows(live.campaign.seed)] / costs
            assert scores == pytest.approx(np.sort(worth)[::-1][: len(scores)]) and np.ptp(costs) > 0.01


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"per_cost": True, "strategy": "min_margin"}, "the score of strategy 'min_margin' is no worth of each prompt by itself.* those that can be: bleuvar, least_confidence, max_token_entropy, mean_entropy"),
        ({"per_cost": True, "budget": 30}, "per_cost divides by minutes or dollars, and the budget is 30 judgements"),
        ({"budget": {"minutes": 5, "usd": 5}}, "give minutes or usd, one of the two"),
        ({"budget": {"minuts": 5}}, "unknown key 'minuts'; did you mean 'minutes'"),
        ({"budget": 0}, "0 is neither a number of judgements, at least 1"),
        ({"schedule": [10, 10, 10]}, r"the schedule \[10, 10, 10\] counts prompts, and the budget is in minutes"),
        ({"oracle": {"use": "mixed", "machine": "replay"}}, "the oracle mixed counts its probes in judgements"),
        ({"budget": {"usd": 5}, "prices": {"per_annotation": 0}}, "needs a price"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused_in_one_line(change, says):
    with pytest.raises(ConfigError, match=says) as refused:
        config(**change)
    assert "\n" not in str(refused.value)


def test_an_amount_that_pays_too_little_is_refused_before_anything_is_asked(tmp_path):
    with pytest.raises(ConfigError, match=r"2 judgements are what the budget is assumed to pay: .* leaves 1 prompts for 3 rounds"):
        real.go(config(budget={"minutes": 2}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_plan_says_how_many_prompts_an_amount_pays_and_that_it_is_an_assumption():
    said = "\n".join(plan.lines(config(budget={"minutes": 40, "reserve": 0.1}), Path("unused")))
    assert "40 minutes, 4 minutes of them kept back, at 1 minutes a prompt, pay about 36 prompts [" in said and "an assumption" in said
    certain = "\n".join(plan.lines(config(budget={"usd": 40}), Path("unused")))
    assert "pay about 40 prompts [40, 40]: the price of each is known" in certain
