"""The round loop: score -> select -> annotate -> train -> evaluate, m times, one file a stage.

A `Campaign` says what is done; a `Desk` holds what it is done with; `run` does it and can be killed anywhere.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from . import growth, pairing, proxy, purse, registry, schedule, seeds, shards, slices, subset
from .acquisition import Picked, SignalError, neighbourhood, select
from .errors import DataError
from .measure.words import word_numbers
from .store import Store, hash_folder
from .types import (
    POOL_SIGNALS,
    Annotation,
    Batch,
    Cost,
    Evaluation,
    Evaluator,
    Floats,
    Indices,
    Model,
    Oracle,
    Pairs,
    Pool,
    Prompt,
    Request,
    Round,
    Scorer,
    Selection,
    Signals,
    Trainer,
    View,
)


@dataclass(frozen=True, slots=True)
class Campaign:
    """One strategy, one number of rounds, one schedule, one start, one seed, one budget.

    `start`: "cold" trains from the base on everything bought; "warm_all" goes on from the last round's weights, on everything;
    "warm_new" goes on, on the new batch only. `reference` marks a point of random's learning curve, booked as measurement.
    """

    strategy: str
    rounds: int
    budget: int
    seed: int = 0
    schedule: str | tuple[int, ...] = "even"
    start: str = "cold"
    reference: bool = False

    @property
    def id(self) -> str:
        """Readable and unique: the name of the campaign's folder."""
        plan = self.schedule if isinstance(self.schedule, str) else "x".join(map(str, self.schedule))
        strategy = re.sub(r"[^A-Za-z0-9_.]+", "-", self.strategy).strip("-")[:80]
        if strategy != self.strategy:  # "x(a=1)" and "x(a=-1)" read alike
            strategy += "-" + hashlib.sha256(self.strategy.encode()).hexdigest()[:6]
        return f"{strategy}-m{self.rounds}-{plan}-{self.start}-b{self.budget}-s{self.seed}"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Annotations to buy in each round."""
        return schedule.batches(self.schedule, self.budget, self.rounds)


def campaign_of(entry: dict) -> Campaign:
    """The campaign of an entry in study.json."""
    values = {k: v for k, v in entry.items() if k != "folders"}
    if isinstance(values["schedule"], list):
        values["schedule"] = tuple(values["schedule"])
    return Campaign(**values)


@dataclass(frozen=True, slots=True)
class Desk:
    """What a campaign works with. `pool` is this seed's share of the pool; `base_signals(needs)` gives the base model's signals
    of it, priced as if this campaign had scored it alone; `diversity(bought, new)` measures what was bought, and its last batch;
    `embedding` (n, d) is the space of the evidence beside a choice, centred and normalised; `folders` has one stage folder a round (campaigns that share a prefix share its folders) and `shared` those that another campaign branches from;
    `scored_share` of the unlabeled prompts get live signals in a round, `shard` at a time, and the strategy picks among these;
    `each` is map, or does so with several shards at once; `grown`: what was added to the pool while the campaign ran (its prompts come last); with a
    `proxy`, `base_signals` and all signals after it are the proxy's.

    With annotators: this share of each batch is a random slice (`audit`; see slices, also for `shadow`); `before` scores the model on what was just
    bought, before it is trained on it; `drafts` writes the responses that annotators edit (none for the random slice: who sees the
    model's answer tends to agree with it). Where a budget is in minutes or money, `purse` says what a round may spend, and the campaign's sizes are
    the weights of its shares.

    Where preferences are bought, `pairs(model, prompts, seed)` writes the two drafts that are compared."""

    store: Store
    pool: Pool
    base: Model
    base_signals: Callable[[frozenset[str]], Signals]
    scorer: Scorer
    oracle: Oracle
    trainer: Trainer
    evaluators: Mapping[str, Evaluator]
    diversity: Callable[[Sequence[Annotation], Sequence[Annotation]], dict]
    embedding: Floats
    folders: Sequence[str]
    shared: frozenset[str] = frozenset()
    frozen: frozenset[str] = frozenset({"embedding"})
    scored_share: float = 1.0
    shard: int = 512
    each: Callable = map
    grown: Sequence[growth.Addition] = ()
    keep_models: str = "last"
    proxy: proxy.Proxy | None = None
    audit: float = 0.0
    shadow: bool = False
    purse: Callable[[int], purse.Purse] | None = None
    before: Callable[[Model, Sequence[Annotation], str], Evaluation] | None = None
    drafts: Callable[[Model, Sequence[Prompt]], Sequence[str]] | None = None
    pairs: Callable[[Model, Sequence[Prompt], int], Pairs] | None = None


def run(campaign: Campaign, desk: Desk) -> Iterator[Round]:
    """Do the rounds; yields each as it is done. Stages whose file is there are read, not done again."""
    card = registry.card("strategy", registry.parse(campaign.strategy)[0])
    store, everything, pool = desk.store, desk, None
    bought: list[Annotation] = []
    closed: Indices = np.empty(0, dtype=np.int64)  # asked before: bought or skipped
    model, remake, owed = desk.base, None, 0
    scout, again, lesson = desk.proxy and desk.proxy.base, None, bought  # the proxy, how to make it again, and what it is to learn next
    for number, (size, folder) in enumerate(zip(campaign.sizes, desk.folders, strict=True), 1):
        desk = growth.within(everything, number)
        if desk.pool is not pool:
            pool, memory = desk.pool, {}
            groups, lottery = pool.groups, seeds.lottery(campaign.seed, pool.ids)
            known = {"words": word_numbers(pool.texts)} if "words" in card.needs else {}
        unlabeled = np.setdiff1d(np.arange(len(pool)), closed)
        labeled = pool.rows_of(a.prompt_id for a in bought)
        money = desk.purse(number) if desk.purse else None
        wanted = size + owed
        k = min(wanted, len(unlabeled)) if money is None else purse.guess(money, unlabeled)
        drawn = seeds.seed(campaign.seed, "pairs", number) if desk.pairs else 0
        if not len(unlabeled):
            raise DataError(f"the pool is used up: all {len(pool)} prompts were bought or skipped before round {number}; enlarge the pool or lower the budget")
        if not k:  # the money is spent
            store.keep(f"{folder}/selection.json", Selection, partial(Selection, campaign.strategy, ()))
            return
        offered = unlabeled
        if desk.scored_share < 1 and _live(desk, card, model):
            offered = subset.candidates(pool.ids, unlabeled, desk.scored_share, least=k, seed=campaign.seed, number=number)
        reader, taught, former = (model, remake), Cost(), scout
        if desk.proxy and _live(desk, card, model):
            recipe = partial(train, desk, campaign.seed, desk.proxy.base if campaign.start == "cold" else scout, again, lesson, folder, "proxy")
            scout, again = reader = store.keep(f"{folder}/proxy-model.json", Model, recipe), recipe
            taught = scout.cost
        signals = _signals(desk, card, *reader, folder, offered, closed, drawn)
        signals = replace(signals, columns={**signals.columns, **known})
        moving = signals.live & {"embedding"}
        view = View(signals, offered, labeled, groups, lottery, {name: desk.base_signals(moving).columns[name] for name in moving}, memory, money.costs if money and money.per_cost else None)
        stream = partial(seeds.generator, campaign.seed, "select", campaign.strategy, number)
        draft = partial(_draft, desk, model, remake, campaign.strategy, folder, drawn)
        view, k, drafting = draft("pairs", view, k, stream)
        if not k:
            raise DataError(f"none of the {len(offered)} prompts on offer has two different drafts by this round's model; raise the scorer's samples or temperature, or lower the budget")
        one = partial(_select, campaign.strategy, view, stream, desk, partial(slices.draw, desk, campaign, unlabeled, number))
        selection = store.keep(f"{folder}/selection.json", Selection, partial(purse.affordable, money, campaign.strategy, one, k, len(view.unlabeled), pool.rows_of))
        if not selection.ids:
            return
        k = len(selection.ids)
        if len(offered) < len(unlabeled):
            store.keep(f"{folder}/agreement.json", dict, partial(_agreement, campaign.strategy, desk, card, replace(view, unlabeled=unlabeled), view, k, stream))
        if desk.proxy and card.needs - POOL_SIGNALS:
            store.keep(f"{folder}/proxy-agreement.json", dict, partial(_beside_target, campaign, desk, card, model, remake, view, k, folder, number, stream))
        ask = partial(_ask, desk, model, remake, folder, number)
        batch = store.keep(f"{folder}/batch.json", Batch, partial(_buy, campaign, desk, money, view, selection, folder, number, ask, draft))
        new = [a for a in batch.annotations if a.kind != "skip"]
        owed = wanted - len(new)  # places that were skipped twice, or had no two drafts, are filled from the next round's choice
        bought, closed = bought + new, np.concatenate([closed, pool.rows_of(a.prompt_id for a in batch.annotations)])
        if desk.before and new:
            store.keep(f"{folder}/before.parquet", Evaluation, partial(_before, desk, model, remake, new, folder))

        begin = desk.base if campaign.start == "cold" else model
        lesson = new if campaign.start == "warm_new" else bought
        recipe = partial(train, desk, campaign.seed, begin, remake, lesson, folder)
        last, model, remake = model, store.keep(f"{folder}/model.json", Model, recipe), recipe
        evaluations = []
        for name, evaluator in desk.evaluators.items():
            test = partial(_evaluate, desk, evaluator, model, remake)
            evaluations.append(store.keep(f"{folder}/evaluation-{name}.parquet", Evaluation, test))
        store.keep(f"{folder}/diversity.json", dict, partial(desk.diversity, bought, new))
        for old, now in ((last, model), (former, scout)):
            if desk.keep_models == "last" and old and old.weights and old is not now and old.weights.rpartition("/")[0] not in desk.shared:
                discard(store.root / old.weights)
        needed = number == campaign.rounds or proxy.pays_for_every_training(desk.proxy, campaign.start)
        yield Round(number, len(bought), model, tuple(evaluations), signals.cost + drafting + taught + batch.cost + (model.cost if needed else Cost()))


def _live(desk: Desk, card: registry.Card, model: Model) -> frozenset[str]:
    """The signals that this model is to be scored for; none for the base, whose signals are there of every prompt."""
    return card.needs - POOL_SIGNALS - desk.frozen if model.weights else frozenset()


def _agreement(strategy: str, desk: Desk, card: registry.Card, whole: View, part: View, k: int, stream: Callable[[], np.random.Generator]) -> dict:
    """By the base's signals, which are there of every prompt: what the strategy would pick from the subset, and from all."""
    known = {name: whole.signals.columns[name] for name in card.needs & POOL_SIGNALS}
    base = Signals(desk.base_signals(card.needs - POOL_SIGNALS).columns | known)
    return subset.agreement(strategy, replace(whole, signals=base, base={}, memory={}), replace(part, signals=base, base={}, memory={}), k, (stream(), stream()))


def _beside_target(campaign: Campaign, desk: Desk, card: registry.Card, model: Model, remake: Callable | None, view: View, k: int, folder: str, number: int, stream: Callable) -> dict:
    """The target scores a sample of what the proxy scored. Its base's embedding is there of every prompt."""
    rows = proxy.sample(desk.pool.ids, view.unlabeled, seed=campaign.seed, number=number)
    needs = card.needs - POOL_SIGNALS
    known = {name: view.signals.columns[name] for name in card.needs & POOL_SIGNALS}
    if "embedding" in needs and (not model.weights or "embedding" in desk.frozen):
        known["embedding"] = desk.proxy.embedding
    found = Signals({})
    if live := needs - known.keys():
        where = desk.store.root / folder
        found = _score(desk, _at_hand(desk, model, remake), live, live & card.of_labeled, rows, view.labeled, where, 0)
        shards.discard(where)
    return proxy.agreement(campaign.strategy, view, replace(found, columns={**found.columns, **known}), desk.proxy.embedding, rows, k, desk.pool.ids, (stream(), stream()))


def _signals(desk: Desk, card: registry.Card, model: Model, remake: Callable | None, folder: str, unlabeled: Indices, closed: Indices, seed: int) -> Signals:
    """The scorer's signals that the strategy declared, (n, ...); live ones are NaN on rows that were asked before, unless it reads them there."""
    needs, live = card.needs - POOL_SIGNALS, _live(desk, card, model)
    columns: dict[str, np.ndarray] = {}
    if needs - live:
        base = desk.base_signals(needs - live)
        columns |= {name: base.columns[name] for name in needs - live}
    if not model.weights and needs:  # the first round: the base's signals, of which the file keeps the scalars and the price
        kept = desk.store.keep(f"{folder}/signals.parquet", Signals, lambda: replace(base, columns={c: v for c, v in base.columns.items() if v.ndim == 1}))
        return Signals(columns, kept.live, kept.cost)
    if not live:
        return Signals(columns)
    where = desk.store.root / folder
    kept = desk.store.keep(f"{folder}/signals.parquet", Signals, lambda: _score(desk, _at_hand(desk, model, remake), live, live & card.of_labeled, unlabeled, closed, where, seed))
    shards.discard(where)
    return Signals(columns | {name: kept.columns[name] for name in live}, live, kept.cost)


def _score(desk: Desk, model: Model, live: frozenset[str], everywhere: frozenset[str], unlabeled: Indices, closed: Indices, folder: Path, seed: int) -> Signals:
    passes = []
    for chosen, needs in ((unlabeled, live), (closed, everywhere)):  # coverage looks at what was bought too
        if needs and len(chosen):
            key = f"{model.digest} {sorted(needs)}"
            passes += shards.scored(folder, desk.pool, chosen, desk.shard, lambda part, needs=needs: desk.scorer(model, part, needs, seed=seed), key=key, each=desk.each)
    columns: dict[str, np.ndarray] = {}
    for rows, part in passes:
        for name, values in part.columns.items():
            if name not in columns:
                kind = values.dtype if values.dtype.kind == "f" else np.float32
                columns[name] = np.full((len(desk.pool), *values.shape[1:]), np.nan, dtype=kind)
            columns[name][rows] = values
    return Signals(columns, live, sum((part.cost for _, part in passes[1:]), passes[0][1].cost))


def _draft(desk: Desk, model: Model, remake: Callable | None, strategy: str, folder: str, seed: int, stage: str, view: View, k: int, stream: Callable) -> tuple[View, int, Cost]:
    """Where preferences are bought: see pairing.offer. Else nothing is done."""
    if not desk.pairs:
        return view, k, Cost()

    def pick(rows: Indices, k: int) -> Indices:
        return _pick(strategy, replace(view, unlabeled=rows), k, stream(), desk).rows

    return pairing.offer(desk.store, f"{folder}/{stage}.json", desk.pool, view, k, pick, lambda prompts: desk.pairs(_at_hand(desk, model, remake), prompts, seed))


def _pick(strategy: str, view: View, k: int, rng: np.random.Generator, desk: Desk) -> Picked:
    try:
        return select(strategy, view, k, rng)
    except SignalError as bad:
        raise DataError(f"prompt '{desk.pool.at([bad.row])[0].id}': {bad}") from None


def _select(strategy: str, view: View, stream: Callable[[], np.random.Generator], desk: Desk, slice_of: Callable[[int], Indices], k: int) -> Selection:
    audit = slice_of(k)
    picked = _pick(strategy, replace(view, unlabeled=np.setdiff1d(view.unlabeled, audit)), k - len(audit), stream(), desk)
    ids, rows = desk.pool.ids, np.concatenate([picked.rows, audit])
    found = neighbourhood(desk.embedding, rows, view.labeled)
    return Selection(
        strategy,
        tuple(ids[row] for row in rows),
        scores=None if picked.scores is None else (*(float(s) for s in picked.scores), *[None] * len(audit)),
        represents=tuple(int(r) for r in found.represents),
        nearest=tuple((ids[row], float(s)) if row >= 0 else None for row, s in zip(found.nearest, found.similarity, strict=True)),
        examples=tuple(tuple(ids[row] for row in rows) for rows in found.examples),
        objective=picked.objective,
        bound=picked.bound,
        audit=len(audit),
    )


def _buy(campaign: Campaign, desk: Desk, money: purse.Purse | None, view: View, selection: Selection, folder: str, number: int, ask: Callable[[Selection, str], Batch], draft: Callable) -> Batch:
    """Ask; places that were skipped are asked again once, with what the strategy wants next."""
    first = ask(selection, "")
    closed = desk.pool.rows_of(selection.ids)
    left, answered = np.setdiff1d(view.unlabeled, closed), [a.prompt_id for a in first.annotations if a.kind != "skip"]
    k = min(len(selection.ids) - len(answered), len(left))
    if not k:
        return first
    view = replace(view, unlabeled=left, labeled=np.concatenate([view.labeled, desk.pool.rows_of(answered)]))
    stream = partial(seeds.generator, campaign.seed, "select", campaign.strategy, number, "again")
    view, k, _ = draft("pairs-again", view, k, stream)
    if not k:
        return first
    if money is not None:
        rest = money.share - money.spent(first.annotations)
        money = replace(money, share=rest, limit=rest)
    one = partial(_select, campaign.strategy, view, stream, desk, lambda _: closed[:0])
    again = desk.store.keep(f"{folder}/selection-again.json", Selection, partial(purse.affordable, money, campaign.strategy, one, k, k, desk.pool.rows_of))
    if not again.ids:
        return first
    second = ask(again, "-again")
    return Batch(first.annotations + second.annotations, first.cost + second.cost)


def _ask(desk: Desk, model: Model, remake: Callable | None, folder: str, number: int, selection: Selection, stage: str) -> Batch:
    prompts = desk.pool.at(desk.pool.rows_of(selection.ids))
    drafts: Mapping[str, tuple[str, ...]] = {}
    if desk.pairs:
        drafts = desk.store.read(f"{folder}/pairs{stage}.json", Pairs).drafts
    elif desk.drafts:
        shown = prompts[: len(prompts) - selection.audit]
        kept = desk.store.keep(f"{folder}/drafts{stage}.json", dict, lambda: dict(zip([p.id for p in shown], desk.drafts(_at_hand(desk, model, remake), shown), strict=True)))
        drafts = {key: (text,) for key, text in kept.items()}
    scores, represents = selection.scores or [None] * len(prompts), selection.represents or [None] * len(prompts)
    requests = [
        Request(prompt, drafts.get(prompt.id, ()), number, {"score": score, "rank": rank, "represents": many}, "preference" if desk.pairs else "response")
        for rank, (prompt, score, many) in enumerate(zip(prompts, scores, represents, strict=True), 1)
    ]
    batch = desk.oracle(requests)
    return replace(batch, annotations=tuple(replace(a, round=number) for a in batch.annotations))


def _before(desk: Desk, model: Model, remake: Callable | None, new: Sequence[Annotation], folder: str) -> Evaluation:
    return desk.before(_at_hand(desk, model, remake), new, folder)


def train(desk: Desk, seed: int, begin: Model, remake: Callable | None, lesson: Sequence[Annotation], folder: str, name: str = "model") -> Model:
    """Fine-tune the target ("model") or the "proxy" in one canonical order with a seed that knows neither strategy, m nor round: the same set gives the same model."""
    lesson = sorted(lesson, key=lambda a: a.prompt_id)
    prompts = desk.pool.at(desk.pool.rows_of(a.prompt_id for a in lesson))
    trainer, drafts = (desk.proxy.trainer, ".training-proxy") if name == "proxy" else (desk.trainer, ".training")
    out, draft = desk.store.root / folder / name, desk.store.root / folder / drafts
    shutil.rmtree(draft / name, ignore_errors=True)  # of a killed process; its trainer's checkpoint stays, to go on from
    model = trainer(_at_hand(desk, begin, remake), prompts, lesson, draft / name, seed=seeds.seed(seed, "train"))
    digest = hash_folder(draft / name)
    discard(out)
    os.replace(draft / name, out)
    shutil.rmtree(draft)
    return replace(model, base=begin.base, weights=f"{folder}/{name}", digest=digest)


def discard(folder: Path) -> None:
    """Delete a folder; a kill in between leaves no half of it under its name."""
    gone = folder.with_name(f".{folder.name}.gone")
    if folder.exists():
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


def _evaluate(desk: Desk, evaluator: Evaluator, model: Model, remake: Callable) -> Evaluation:
    return evaluator(_at_hand(desk, model, remake), seed=0)


def _at_hand(desk: Desk, model: Model, remake: Callable[[], Model] | None) -> Model:
    """The model with an absolute path. Weights that were not kept are made again, and must come out the same."""
    if not model.weights:
        return model
    where = desk.store.root / model.weights
    if not where.exists():
        # Two campaigns of a grown study may branch off here at the same time: one makes the weights, the other one waits.
        with desk.store.lock(f"{model.weights}.lock", wait=24 * 3600):
            again = model if where.exists() or not remake else remake()
        if again.digest != model.digest:
            discard(where)
            raise DataError(f"{where}: weights trained again differ from those recorded ({again.digest}, {model.digest}); versions or threads have changed: start a new run")
    return replace(model, weights=str(where))
