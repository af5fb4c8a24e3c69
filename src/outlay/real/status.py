"""`outlay campaign status`: where things stand, what more annotations would bring, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from ..measure.forecast import POINTS
from ..measure.stats import Interval, accuracy_interval
from ..store import Store
from . import money, shadow
from .state import AHEAD, Stage, State


def lines(state: State, target: str) -> Iterator[str]:
    """The status in sentences, one a line; `target` is the config or run directory that the user names."""
    config, live = state.live.config, state.live
    yield f"campaign {config.name}: {live.asked.how}, {count(config.rounds, 'round')}; run directory {live.root}"
    yield budget(state)
    yield from additions(state)
    if state.base is not None:
        yield f"base model: dev accuracy {percent(accuracy_interval(state.base.columns['correct']))}"
    for stage in state.stages:
        yield _stage(stage, state)
    if (together := state.running_audit) is not None:
        yield f"random slices of all rounds together: {percent(together)} of the pool right, on average over these models"
    if config.annotators.per_item > 1:
        yield f"agreement: {state.agreement.text()}"
    if (same := state.machine) is not None:
        yield f"the machine gave the same answer as people on {percent(same)} of the probes"
    yield forecast(state)
    if worth := verdict(state):
        yield worth
    yield f"next: {advice(state, target)}"


def budget(state: State) -> str:
    """What was paid, for what, and what is left."""
    config = state.live.config
    k = config.annotators.per_item
    taken = [stage for stage in state.stages if stage.taken]
    parts = [f"{name} {number}" for name, number in (
        ("dev set", sum(s.paid for s in taken if not s.number)), ("random slices", k * sum(s.sliced for s in taken)),
        ("chosen", sum(s.paid for s in taken if s.number) - k * sum(s.sliced for s in taken)), ("not trained on yet", sum(s.paid for s in state.stages if not s.taken)),
    ) if number]  # fmt: skip
    of = f" ({', '.join(parts)})" if parts else ""
    if (ledger := state.live.ledger) is not None:
        unit, whole = ledger.total.unit, ledger.total.amount
        spent = sum(ledger.spent(stage.number, state.fit) for stage in state.stages)
        line = f"budget: {money.amount(spent, unit)} of {money.amount(whole, unit)} spent, for {count(state.paid, 'judgement')}{of}"
        left = whole * (1 - ledger.total.reserve) - spent
        if state.finished or left <= 0:
            return line
        return f"{line}; what is left pays about {prompts(ledger.prompts(state.fit, left))} prompts of the pool (learned from {count(state.fit.answers, 'answer')})"
    return f"budget: {state.paid} of {config.budget} judgements paid{of}; ${state.usd:,.2f} of ${config.budget * config.prices.per_annotation:,.2f}"


def prompts(found: Interval) -> str:
    """A predicted number of prompts with its interval."""
    return f"{found.mean:.0f} [{found.low:.0f}, {found.high:.0f}]"


def additions(state: State) -> Iterator[str]:
    """What was added to the pool, and what that means for the dev set."""
    grown = state.live.bench.grown()
    if grown:
        later = ", ".join(f"{a.prompts} added at {a.at} (for round {a.round} and later ones)" for a in grown)
        dev = "; the dev set is of the prompts of the start" if state.live.config.dev_items else ""
        yield f"pool: {grown[0].before} prompts at the start, {later}{dev}; each random slice speaks of the pool as it was then"


def _stage(stage: Stage, state: State) -> str:
    name = f"round {stage.number}" if stage.number else "dev set"
    if not stage.taken:
        done = count(stage.asked * state.live.config.annotators.per_item, "judgement")
        if not stage.waiting:
            return f"{name}: all of {done} are back"
        pace = state.pace
        if (ledger := state.live.ledger) is not None:
            done += f"; all of them predicted to cost {money.about(ledger.batch(state.fit, state.asked(stage)), ledger.total.unit)}"
        work = f"; at {pace:.0f} s each, {stage.waiting * pace / 60:.0f} minutes of work" if pace else ""
        who = ", ".join(f"{person} {number}" for person, number in state.by_annotator.most_common())
        return f"{name}: waits for {stage.waiting} of {done}{work}{f' (so far in all: {who})' if who else ''}"
    said = [f"{count(stage.bought, 'prompt')} bought"]
    if stage.skipped:
        said.append(f"{stage.skipped} skipped")
    if stage.audit is not None:
        said.append(f"the model before it was right on {percent(stage.audit.whole)} of the pool, by its random slice")
    if stage.number and not stage.trained:
        said.append("not trained on yet")
    if stage.dev_accuracy is not None:
        said.append(f"dev accuracy after it {percent(stage.dev_accuracy)}")
    return f"{name}: {'; '.join(said)}"


def forecast(state: State) -> str:
    """What the next annotations are expected to bring, or why that is unknown."""
    found = state.forecast()
    points = len(state.points()[0])
    lead = f"the next {AHEAD} prompts are expected to bring"
    if not state.live.config.dev_items and state.live.config.dev_set is None:
        return f"{lead}: unknown, since there is no dev set"
    if found is None:
        return f"{lead}: unknown, a forecast needs {POINTS} trained rounds and there {'is' if points == 1 else 'are'} {points}"
    line = f"{lead} {100 * found.mean:+.1f} points of dev accuracy, 95 % interval {100 * found.low:+.1f} to {100 * found.high:+.1f} ({points} rounds)"
    if found.low <= 0 <= found.high:
        return f"{line}: these rounds cannot tell whether more annotations help"
    return line


def verdict(state: State) -> str | None:
    """Is the strategy worth it here? From the shadow arm where it was compared, or the replay where there was one; else a heuristic, and said to be one."""
    store, config = Store(state.live.root), state.live.config
    if (found := shadow.comparison(state.live)) is not None:
        return f"is it worth it: {found.words(config.strategy)}"
    if (store.root / "replay.json").exists():
        return f"is it worth it: {store.read('replay.json', dict)['verdict']}"
    chosen, random = ([right for s in state.rounds for right in getattr(s, name)] for name in ("chosen", "slice_right"))
    if not chosen or not random:
        return None
    by_chance = accuracy_interval(random)
    finds = "too few to tell whether the strategy finds what the model cannot do"
    if not by_chance.low <= fmean(chosen) <= by_chance.high:
        finds = "so the strategy " + ("finds" if fmean(chosen) < by_chance.mean else "does not find") + " what the model cannot do"
    only = "a replay on labelled data compares with random: `outlay campaign plan` with a sample"
    if config.shadow:
        only = f"the shadow arm compares with random: `outlay campaign finish`, from {shadow.LEAST} answers of each kind on"
    return (
        f"is it worth it: unknown, there is nothing to compare with; before it learned from them, the model was right on {100 * fmean(chosen):.0f} % of the {len(chosen)} chosen prompts and on "
        f"{100 * by_chance.mean:.0f} % of the {len(random)} random ones, {finds} (a heuristic; only {only})"
    )


def advice(state: State, target: str) -> str:
    """What to do now."""
    live = state.live
    final = live.root / "final"
    if state.open and live.asks_people:
        left = sum(stage.waiting for stage in state.open)
        return f"{count(left, 'judgement')} to give: `outlay annotate {target}`, or `outlay campaign import {target} FILES`; then `outlay campaign next {target}`"
    if not state.finished:
        return f"`outlay campaign next {target}`" + (f"; or stop here with `outlay campaign finish {target}`" if live.trained() else "")
    if not live.trained():
        return "nothing: the budget was spent before a round was trained; start another campaign, with a larger budget or a smaller dev_share"
    return f"nothing, it is finished: {final}" if final.exists() else f"`outlay campaign finish {target}`"


def percent(found: Interval) -> str:
    """"41.0 % [25.1, 58.9] (n = 30)"."""
    return f"{100 * found.mean:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}] (n = {found.n})"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def not_begun(target: str, root: Path) -> str:
    """The status of a campaign that has no run directory yet."""
    return f"not begun: there is no {root}\nnext: `outlay campaign plan {target}` for price and days, then `outlay campaign next {target}`"
