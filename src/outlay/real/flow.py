"""`outlay campaign next`: go on with the rounds until people have to answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from .. import study as studies
from ..campaign import Desk, run
from ..errors import AwaitingAnnotations, OutlayError
from ..measure.stats import accuracy_interval
from ..store import Store
from ..types import Annotation, Batch, Evaluation, Model, Oracle, Prompt, Request, Round
from ..workbench import runtime_of
from . import setup, shadow
from .config import CampaignConfig
from .setup import DEV, DEV_TABLE, Live

Say = Callable[[str], None]


def next_round(config: CampaignConfig, root: Path, say: Say) -> Live:
    """Do all that can be done now: score, choose, hand over; or take what came back, train, evaluate, and go on. -> the campaign, when all
    rounds are done. AwaitingAnnotations where people have to answer first; killed anywhere, the same call goes on from the last stage."""
    studies.make_folder(root)
    with Store(root).lock(".lock"):
        try:
            live = setup.set_up(config, root)
        except OutlayError:
            studies.leave_nothing(root)
            raise
        before = live.trained()
        _base(live, say)
        for done in run(live.campaign, _desk(live)):
            if done.number > before:
                say(_line(done, config.rounds))
            if config.shadow_each_round:
                shadow.compare(live, done.number, say)
    return live


def _base(live: Live, say: Say) -> None:
    """What the rounds read of the base model."""
    bench = live.bench
    todo = [(group, shard) for group in range(len(bench.study["needs"])) for shard in range(bench.shards()) if not (live.root / bench.shard_path(group, shard)).exists()]
    if todo:
        rest = "what is new in " if bench.grown() else ""
        say(f"the base model {live.config.model} reads {rest}the pool of {len(bench.pool())} prompts")
    for group, shard in todo:
        bench.do_signals(group, shard)
    bench.do_tfidf()


def _desk(live: Live) -> Desk:
    config, bench = live.config, live.bench
    desk = bench.desk(live.campaign, list(live.folders), len(live.folders))
    waiting = _dev(live, desk.oracle)
    tests = {}
    if waiting is None and live.dev_answers():
        tests["dev"] = lambda model, *, seed: live.grade(model, DEV_TABLE, "dev")
        live.store.keep("shared/base/evaluation-dev.parquet", Evaluation, lambda: live.grade(bench.base, DEV_TABLE, "dev"))

    def ask(requests: Sequence[Request]) -> Batch:
        """Both hand-offs are out before anybody waits: the dev set's, and the first round's."""
        batch = desk.oracle(requests)
        if waiting is not None:
            raise waiting
        return batch

    def before(model: Model, new: Sequence[Annotation], folder: str) -> Evaluation:
        live.write_items(f"{folder}/bought.parquet", desk.pool.at(desk.pool.rows_of(a.prompt_id for a in new)), new)
        return live.grade(model, f"{folder}/bought.parquet", "before")

    def drafts(model: Model, prompts: Sequence[Prompt]) -> list[str]:
        from ..engine import drafts as engine

        return engine.write(model, prompts, runtime_of(bench.config), max_new_tokens=bench.scorer().max_new_tokens)

    return replace(desk, oracle=ask, evaluators=tests, audit=config.slice_share, shadow=config.shadow > 0, purse=live.ledger and live.ledger.purse, before=before if config.slice_share else None, drafts=drafts if config.drafts else None)


def _dev(live: Live, oracle: Oracle) -> AwaitingAnnotations | None:
    """Buy the dev set, places that were skipped once again; or say that it waits."""
    if not live.config.dev_items:
        return None
    prompts = live.dev_prompts()

    def buy() -> Batch:
        first, spare = prompts[: live.config.dev_items], prompts[live.config.dev_items :]
        batch = oracle([Request(prompt) for prompt in first])
        skipped = sum(a.kind == "skip" for a in batch.annotations)
        if again := spare[:skipped]:
            more = oracle([Request(prompt) for prompt in again])
            batch = Batch(batch.annotations + more.annotations, batch.cost + more.cost)
        return batch

    try:
        batch = live.store.keep(DEV, Batch, buy)
    except AwaitingAnnotations as waiting:
        return waiting
    if not (live.root / DEV_TABLE).exists():
        kept = [a for a in batch.annotations if a.kind != "skip"]
        by_id = {prompt.id: prompt for prompt in prompts}
        live.write_items(DEV_TABLE, [by_id[a.prompt_id] for a in kept], kept)
    return None


def _line(done: Round, rounds: int) -> str:
    """One round in a line."""
    dev = [f"; dev accuracy {100 * found.mean:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}], {found.n} items" for found in (accuracy_interval(e.columns["correct"]) for e in done.evaluations)]
    return f"round {done.number} of {rounds}: trained on {done.labels_spent} prompts{dev[0] if dev else ''}"
