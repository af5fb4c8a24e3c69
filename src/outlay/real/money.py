"""Budgets in minutes or dollars: what a judgement is predicted to cost, what was spent, and what the next round may spend.

The rule: a round's batch is predicted to cost at most its share of what is left, and what it really cost is deducted before the next share is set. So
a campaign exceeds its budget (less the reserve) by no more than the error of the last batch's prediction, with that of the dev set where the
two were asked together; and once nothing is left, nothing more is bought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..measure import effort
from ..measure.stats import Interval
from ..oracles import handoff
from ..purse import Purse
from ..types import Annotation, Batch, Floats, Pool
from .config import CampaignConfig, Sum

if TYPE_CHECKING:
    from .setup import Live

DAY = 8 * 3600.0  # seconds of work
SECONDS = 60.0  # of a judgement, where nothing is said


@dataclass(frozen=True, slots=True)
class Share:
    """What round `number` was given, as it is kept in its folder: `spent` before it (the dev set as predicted where it was still open), its
    `share` of the `limit` that was left, and how costs were predicted."""

    number: int
    spent: float
    share: float
    limit: float
    fit: effort.Fit


def assumed(config: CampaignConfig, unit: str, lengths: Floats) -> Floats:
    """What one judgement of each prompt is assumed to cost, in minutes or dollars. lengths (n, 2), as `lengths_of` -> (n,)."""
    say, people = config.effort, config.annotators
    if unit == "usd" and say.per_hour is None:
        return np.full(len(lengths), config.prices.per_annotation)
    seconds = say.seconds if say.seconds is not None else DAY / people.per_day if people.per_day else SECONDS
    taken = seconds + lengths @ np.array([say.per_100_characters, say.per_100_tokens]) / 100
    return taken / 60 if unit == "minutes" else taken / 3600 * say.per_hour


def lengths_of(pool: Pool, tokens: Floats | None = None) -> Floats:
    """Characters of each prompt, and tokens of the base model's response to it (0 where it wrote none). -> (n, 2)."""
    texts = pool.texts
    return np.column_stack([[len(text) for text in texts], np.zeros(len(texts)) if tokens is None else tokens]).astype(np.float64)


def judgements(config: CampaignConfig, total: Sum, pool: Pool) -> int:
    """How many judgements the budget is assumed to pay: the campaign's sizes in its plan, and that of its dev set."""
    return int(total.amount * (1 - total.reserve) / assumed(config, total.unit, lengths_of(pool)).mean())


@dataclass(frozen=True)
class Ledger:
    """The money of a campaign. All amounts are in the unit of its budget."""

    live: Live
    total: Sum

    # -- what is known of the prompts --------------------------------------------------------------------------------------

    @cached_property
    def lengths(self) -> Floats:
        """Of the whole pool, as far as the base model has read it. (n, 2)."""
        bench = self.live.bench
        read = all((self.live.root / bench.shard_path(group, shard)).exists() for group in range(len(bench.study["needs"])) for shard in range(bench.shards()))
        return lengths_of(bench.pool(), bench.base_signals()[0].columns["response_tokens"] if read else None)

    def fit(self, before: int) -> effort.Fit:
        """The prediction from what came back for the dev set and the rounds before this number."""
        lengths = self.lengths
        fit = effort.assumption(lengths)
        rows, costs = [], []
        for number in range(before):
            for row, cost, weight in self._recorded(number):
                rows += [row] * weight
                costs += [cost / weight] * weight
        if self._constant(costs) or not rows:
            return replace(fit, scatter=0.0) if self._constant(costs) else fit
        return effort.learn(fit, lengths[rows], costs, self._assumed(lengths[rows]))

    def costs(self, fit: effort.Fit, rows: Sequence[int] | slice = slice(None)) -> Floats:
        """Predicted cost of each prompt (rows of the whole pool), with all its judgements. -> (n,)."""
        lengths = self.lengths[rows]
        return self.live.config.annotators.per_item * fit.costs(lengths, self._assumed(lengths))

    def batch(self, fit: effort.Fit, ids: Sequence[str]) -> Interval:
        """Predicted cost of asking these prompts, with its interval."""
        k = self.live.config.annotators.per_item
        lengths = np.repeat(self.lengths[self.live.bench.pool().rows_of(ids)], k, axis=0)
        return fit.total(lengths, self._assumed(lengths))

    def prompts(self, fit: effort.Fit, amount: float) -> Interval:
        """How many prompts of the pool this amount is predicted to pay."""
        lengths = self.lengths
        return paid(fit, lengths, self.live.config.annotators.per_item * self._assumed(lengths), amount)

    def _assumed(self, lengths: Floats) -> Floats:
        return assumed(self.live.config, self.total.unit, lengths)

    def _constant(self, costs: Sequence[float]) -> bool:
        """Whether each judgement has one price: nothing is to be learned, and nothing scatters."""
        price = self.live.config.prices.per_annotation
        return self.total.unit == "usd" and self.live.config.effort.per_hour is None and all(abs(cost - price) < 1e-9 for cost in costs)

    # -- what was spent ----------------------------------------------------------------------------------------------------

    def price(self, a: Annotation) -> float | None:
        """What a judgement has cost; None where nobody took the time. A skip costs its time, and is not paid by the piece."""
        if self.total.unit == "usd" and a.usd > 0:
            return a.usd
        if self.total.unit == "usd" and self.live.config.effort.per_hour is None:
            return None if a.kind == "skip" else self.live.config.prices.per_annotation
        hours = a.seconds / 3600
        return (hours * 60 if self.total.unit == "minutes" else hours * self.live.config.effort.per_hour) or None

    def spent(self, number: int, fit: effort.Fit, given: Sequence[Annotation] | None = None) -> float:
        """What the dev set (0) or a round has cost so far; an answer whose time is not known counts as predicted, a skip then as nothing."""
        found = self._judgements(number, given)
        rows = self.live.bench.pool().rows_of(a.prompt_id for a, _ in found)
        lengths = self.lengths[rows]
        predicted = fit.costs(lengths, self._assumed(lengths))
        known = [self._whole(a, weight) for a, weight in found]
        return float(sum((0.0 if a.kind == "skip" else weight * guess) if cost is None else cost for (a, weight), cost, guess in zip(found, known, predicted, strict=True)))

    def _recorded(self, number: int) -> list[tuple[int, float, int]]:
        """(row, cost, judgements in it) of the answers of a hand-off whose cost is known."""
        found = [(a, weight, self._whole(a, weight)) for a, weight in self._judgements(number) if a.kind != "skip"]
        known = [(a, weight, cost) for a, weight, cost in found if cost is not None]
        rows = self.live.bench.pool().rows_of(a.prompt_id for a, _, _ in known)
        return [(int(row), cost, weight) for row, (_, weight, cost) in zip(rows, known, strict=True)]

    def _whole(self, a: Annotation, weight: int) -> float | None:
        cost = self.price(a)
        by_piece = self.total.unit == "usd" and self.live.config.effort.per_hour is None and not a.usd
        return cost * weight if cost is not None and by_piece else cost

    def _judgements(self, number: int, given: Sequence[Annotation] | None = None) -> list[tuple[Annotation, int]]:
        """The judgements of a hand-off, each with how many it stands for: what simulated annotators gave is kept only as one a prompt."""
        back = handoff.collected(handoff.folder(self.live.root, number))
        if given is not None:
            ids = {a.prompt_id for a in given}
            back = [a for a in back if a.prompt_id in ids]
        if back:
            return [(a, 1) for a in back]
        path = self.live.batch_path(number)
        kept = given if given is not None else self.live.store.read(path, Batch).annotations if (self.live.root / path).exists() else ()
        return [(a, self.live.config.annotators.per_item) for a in kept]

    # -- what a round may spend --------------------------------------------------------------------------------------------

    def share(self, number: int) -> Share:
        """What round `number` is given, from what came back before it; kept in its folder, so that it stays."""

        def make() -> dict:
            fit = self.fit(number)
            spent = sum(self.spent(n, fit) for n in range(number))
            if self.live.config.dev_items and not (self.live.root / self.live.batch_path(0)).exists():
                spent = self.batch(fit, [p.id for p in self.live.dev_prompts()[: self.live.config.dev_items]]).mean
            limit = self.total.amount * (1 - self.total.reserve) - spent
            weights = self.live.campaign.sizes[number - 1 :]
            return asdict(Share(number, spent, limit * weights[0] / sum(weights), limit, fit))

        kept = self.live.store.keep(f"{self.live.folders[number - 1]}/purse.json", dict, make)
        return Share(**{**kept, "fit": effort.Fit(**{name: tuple(v) if isinstance(v, list) else v for name, v in kept["fit"].items()})})

    def purse(self, number: int) -> Purse:
        """The same for the round loop, over this campaign's share of the pool."""
        given = self.share(number)
        rows = self.live.bench.rows(self.live.campaign.seed)
        return Purse(given.share, given.limit, self.costs(given.fit, rows), lambda annotations: self.spent(number, given.fit, annotations), self.live.asked.per_cost)


def words(config: CampaignConfig, total: Sum, pool: Pool) -> str:
    """What the budget is assumed to pay before anything was asked."""
    lengths = lengths_of(pool)
    costs = config.annotators.per_item * assumed(config, total.unit, lengths)
    certain = total.unit == "usd" and config.effort.per_hour is None
    fit = replace(effort.assumption(lengths), scatter=0.0) if certain else effort.assumption(lengths)
    found = paid(fit, lengths, costs, total.amount * (1 - total.reserve))
    kept = f", {amount(total.amount * total.reserve, total.unit)} of them kept back" if total.reserve else ""
    return (
        f"  {amount(total.amount, total.unit)}{kept}, at {amount(float(costs.mean()), total.unit)} a prompt, pay about {found.mean:.0f} prompts [{found.low:.0f}, {found.high:.0f}]: "
        + ("the price of each is known" if certain else f"an assumption (the config's effort), that counts as {effort.PRIOR} answers; each round's size is set by what the answers before it took")
    )


def paid(fit: effort.Fit, lengths: Floats, assumed: Floats, amount: float) -> Interval:
    """How many prompts like these an amount is predicted to pay; lengths (n, f), assumed (n,) of a prompt with all its judgements."""
    mean = float(fit.costs(lengths, assumed).mean())
    some = slice(0, max(1, min(len(lengths), int(amount / mean))))
    found = fit.total(lengths[some], assumed[some])
    return Interval(amount / mean, amount / mean * found.mean / found.high, amount / mean * found.mean / found.low, fit.answers)


def amount(value: float, unit: str) -> str:
    """"412 minutes", "0.33 minutes", "$412.00"."""
    return f"${_number(value, unit)}" if unit == "usd" else f"{_number(value, unit)} minutes"


def about(found: Interval, unit: str) -> str:
    """"44 minutes [30, 62]"."""
    return f"{amount(found.mean, unit)} [{_number(found.low, unit)}, {_number(found.high, unit)}]"


def _number(value: float, unit: str) -> str:
    return f"{value:,.2f}" if unit == "usd" else f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2g}"
