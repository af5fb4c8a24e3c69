"""`outlay plan`: what a study will cost, before it is paid."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import ConfigError

if TYPE_CHECKING:
    from .config import Prices, StudyConfig
    from .plan import Estimate, Plan
    from .types import Cost

WIDTH = 150
GIB = 2**30
KINDS = {
    "base signals": "base model scores the pool",
    "space": "base model embeds the pool",
    "base evaluation": "tests of the base model",
    "signals": "trained models score the pool",
    "proxy": "training of proxies",
    "agreement": "trained models score samples",
    "batch": "annotations",
    "model": "training",
    "evaluation": "tests of trained models",
}


def plan(
    config: Annotated[Path, typer.Argument(help="YAML or JSON file of the study.", show_default=False)],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override keys of the config, e.g. seeds=5 prices.days_per_round=3.", show_default=False)] = None,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Measure this machine's speed for some seconds, or leave device time unknown.")] = True,
    pilot: Annotated[Path | None, typer.Option(metavar="RUN", help="Run directory of a finished pilot: its seeds say how small a difference this study can detect.", show_default=False)] = None,
    sd: Annotated[float | None, typer.Option(min=0.0, help="Standard deviation over seeds of the difference between two cells' accuracies (a fraction), in the place of a pilot.", show_default=False)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Print what a study will cost, expected and at worst, without running it: annotations, tokens, FLOPs, device time, money and days.

    Example: outlay plan configs/quickstart.yaml prices.days_per_round=3
    """
    from . import config as configs
    from .pilot import detectable
    from .plan import plan as make

    os.environ["HF_HUB_OFFLINE"] = "1"  # a plan downloads nothing; the libraries read this when they are first imported
    if pilot is not None and sd is not None:
        raise ConfigError("give either --pilot RUN or --sd, not both: they say the same")
    found = make(configs.load(config, overrides or []), measure=measure, quiet=quiet)
    _show(found)
    for line in _facts(found):
        typer.echo(line)
    typer.echo(detectable(len(found.config.seeds), pilot=pilot, sd=sd))


def _show(found: Plan) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else WIDTH)
    keys = [key for key in ("schedule", "start", "budget") if len({getattr(line, key) for line in found.lines}) > 1]
    table = Table(title="What a campaign costs alone (mean over seeds; expected, and in brackets the worst case)", title_justify="left", title_style="bold")
    for name in ("strategy", "m", *keys):
        table.add_column(name)
    for name in ("annotations", "prompt\ntokens", "generated\ntokens", "trained\ntokens", "FLOPs", "device\ntime", "cost", "days"):
        table.add_column(name, justify="right")
    for line in found.lines:
        m = str(line.rounds) if line.rounds_run == line.rounds else f"{line.rounds} (={line.rounds_run})"
        table.add_row(line.strategy, m, *(str(getattr(line, key)) for key in keys), *_cells(line.cost, found, line.rounds_run))
    console.print(table)
    table = Table(title=f"The whole study: {found.campaigns} campaigns, shared stages once", title_justify="left", title_style="bold")
    table.add_column("stage")
    for name in ("annotations", "prompt\ntokens", "generated\ntokens", "trained\ntokens", "FLOPs", "device\ntime", "cost"):
        table.add_column(name, justify="right")
    for kind, cost in found.stages.items():
        if cost.worst.flops or cost.worst.labels:
            table.add_row(_words(kind, found.config), *_cells(cost, found))
    table.add_section()
    table.add_row("together", *_cells(found.total, found))
    console.print(table)


def _words(kind: str, config: StudyConfig) -> str:
    """A kind of stage in words. With a proxy, it is the proxy that scores the pool."""
    return KINDS[kind].replace("base model", "proxy's base").replace("trained models", "trained proxies") if config.proxy and kind in ("base signals", "signals") else KINDS[kind]


def _cells(cost: Estimate, found: Plan, rounds: int | None = None) -> Iterator[str]:
    """annotations ... cost, and with `rounds` the days."""
    from .report import words

    prices: Prices = found.config.prices
    yield str(cost.expected.labels)
    for name in ("prompt_tokens", "generated_tokens", "trained_tokens", "flops"):
        yield _both(cost, lambda c, name=name: getattr(c, name), words.si)
    yield _both(cost, lambda c: c.seconds, words.seconds) if found.timed else "unknown"
    yield _both(cost, prices.usd, words.usd) + ("" if found.timed else " + time")
    if rounds is not None:
        yield _both(cost, lambda c: days(c, rounds, prices) or 0.0, lambda d: f"{d:.1f}") if prices.days_per_round is not None else "unknown"


def days(cost: Cost, rounds: int, prices: Prices) -> float | None:
    """Calendar days of a campaign with annotators: a wait for each batch, and the device time. None where the wait is unknown."""
    return None if prices.days_per_round is None else rounds * prices.days_per_round + cost.seconds / 86400


def _both(cost: Estimate, value: Callable[[Cost], float], show: Callable[[Any], str]) -> str:
    expected, worst = show(value(cost.expected)), show(value(cost.worst))
    return expected if expected == worst else f"{expected} ({worst})"


def _facts(found: Plan) -> Iterator[str]:
    from .caps import exceeded
    from .report import words

    config, total = found.config, found.total
    if found.timed:
        yield f"device time: about {words.seconds(total.expected.seconds / found.workers)} with {words.count(found.workers, 'worker')}, at worst {words.seconds(total.worst.seconds / found.workers)}; choosing prompts and measuring diversity are not device time and come on top"
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        if load > cores + 1:
            yield f"  this machine is busy (load {load:.1f} on {cores} cores): on a free one all of this is faster"
    if found.memory:
        yield f"memory: {found.workers} x {found.memory[0] / GIB:.1f} GiB, at worst {found.workers} x {found.memory[1] / GIB:.1f} GiB"
    yield f"disk: about {found.disk[0] / 1e6:.0f} MB, at worst {found.disk[1] / 1e6:.0f} MB" + ("" if found.timed else ", trained models not counted")
    if config.prices.days_per_round is None:
        yield "days: unknown; set prices.days_per_round, the days from asking for a batch of annotations until it is there"
    for name in found.uncounted:
        yield f"test '{name}' is not counted: it does not say what it costs"
    for case, cost in (("expected", total.expected), ("worst", total.worst)):
        if why := exceeded(config, cost):
            yield f"in the {case} case a cap stops this study: {why.replace('are spent', 'would be spent')}"
            break
