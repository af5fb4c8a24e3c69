"""The command line. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 waiting for annotations,
4 stopped at a cap (max_usd, max_hours, max_flops)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import cli_campaign, cli_eval, cli_plan, cli_select
from .errors import AwaitingAnnotations, CapReached, ConfigError, OutlayError

if TYPE_CHECKING:
    from .config import StudyConfig

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Decide how to spend a fixed annotation budget when an LLM is fine-tuned: which prompts, chosen by which acquisition
strategy, in how many rounds.

Examples:

    outlay study configs/quickstart.yaml                     run a study, or resume it

    outlay study configs/quickstart.yaml seeds=5 budgets=[64,128]      grow it

    outlay plan configs/quickstart.yaml                      what it will cost, before it is paid

    outlay list strategies                                   what there is to compare

    outlay report runs/quickstart                            make the tables and the report again

    outlay report runs/quickstart runs/other                 compare two runs

    outlay eval --config config_smollm2.json --mode bbh      a model on BIG-Bench Hard

    outlay campaign status campaign.yaml                     a campaign with annotators, and what to do next in it

    outlay select prompts.jsonl --embeddings prompts.npy --k 500 --out chosen.jsonl      choose once, without a campaign
""",
)

app.command("eval")(cli_eval.evaluate)
app.command("select")(cli_select.select)
app.command("plan")(cli_plan.plan)
app.command("annotate")(cli_campaign.annotate)
app.add_typer(cli_campaign.app, name="campaign")

Config = Annotated[Path, typer.Argument(help="YAML or JSON file of the study.", show_default=False)]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override keys of the config, e.g. seeds=5 trainer.epochs=3.", show_default=False)]
KINDS = {"strategies": "strategy", "pools": "pool", "scorers": "scorer", "trainers": "trainer", "oracles": "oracle", "evaluators": "evaluator", "executors": "executor"}


@app.command()
def study(
    config: Config,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run directory (default: runs/NAME).", show_default=False)] = None,
    executor: Annotated[str | None, typer.Option(help="serial, processes or ray, e.g. 'ray(num_gpus=1)' (default: the config's).", show_default=False)] = None,
    address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Ray cluster (default: RAY_ADDRESS, one on this machine, or a new one here).", show_default=False)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only the final table.")] = False,
) -> None:
    """Run a study. The same command again resumes it, or grows it when the config has more seeds, strategies, rounds, budgets
    or evaluators than before. A study that reaches a cap of its config (max_usd, max_hours, max_flops) stops with exit code 4.

    Example: outlay study configs/quickstart.yaml --out runs/mine budgets=[64] seeds=2
    """
    from . import config as configs
    from .study import run_study

    asked = configs.elsewhere(configs.load(config, overrides or []), executor, address)
    try:
        root = run_study(asked, out or Path("runs") / asked.name, quiet=quiet)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise
    _show(root)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [OTHER]", help="Run directory; two of them are compared.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Of a comparison: the folder to write it into (default: compare-RUN-OTHER beside RUN).", show_default=False)] = None,
) -> None:
    """Make the tables and the report of a run again, from its stage files. Of two runs: compare them, side by side.

    Example: outlay report runs/quickstart

    Example: outlay report runs/quickstart runs/other --out runs/compared
    """
    from . import results

    if len(runs) > 2:
        raise ConfigError(f"a report is of one run or compares two, got {len(runs)}: {', '.join(map(str, runs))}")
    for run in runs:
        if not (run / "study.json").exists():
            raise ConfigError(f"{run} is not a run directory (no study.json in it); run `outlay study CONFIG --out {run}` first")
        if (run / "campaign.json").exists():
            raise ConfigError(f"{run} is a campaign with annotators, not a study; its report is written by `outlay campaign finish {run}`")
        _complete(run)
    if len(runs) == 2:
        from .report.compare import compare

        typer.echo(f"comparison: {compare(*runs, out or runs[0].parent / f'compare-{runs[0].name}-{runs[1].name}')}")
        return
    if out:
        raise ConfigError("--out is for comparing two runs; the report of one is written into the run directory")
    results.write(runs[0])
    _show(runs[0])


@app.command()
def validate(config: Config, overrides: Overrides = None) -> None:
    """Check a config without running it; print the campaigns that it asks for.

    Example: outlay validate configs/quickstart.yaml seeds=5
    """
    from . import config as configs
    from . import grid
    from .study import check

    asked = configs.load(config, overrides or [])
    check(asked)
    cells = grid.asked(asked)
    runs = {grid.runs_as(cell, asked).id for cell in cells}
    typer.echo(f"{config} is valid: {len(cells)} cells, {len(runs)} campaigns to run, {len(grid.references(asked))} reference points of random's learning curve")
    size = asked.pool_per_seed or _pool_size(asked)
    if size:
        for budget in asked.budgets:
            share = grid.chance_overlap(budget, size)
            typer.echo(f"  budget {budget} of {size} prompts: two random choices share {budget / size:.0%} of their prompts by chance (Jaccard {share:.2f}); strategies can differ only in the rest")
    for name in sorted({c.strategy for c in cells if grid.collapses(c, asked)}):
        typer.echo(f"  {name}: run at m = 1 only from a cold start: its signals are frozen and its picks nested, so more rounds change nothing")


def _pool_size(config: StudyConfig) -> int | None:
    """Prompts in the pool, where the config says it."""
    from .registry import parse

    return parse(config.pool)[1].get("size")


@app.command()
def init(
    kind: Annotated[str, typer.Argument(help="study or campaign", show_default=False)],
    path: Annotated[Path | None, typer.Argument(help="Where to write it (default: study.yaml or campaign.yaml).", show_default=False)] = None,
) -> None:
    """Write a commented config to start from.

    Example: outlay init study my-study.yaml
    """
    from importlib.resources import files

    from .errors import near
    from .store import write_atomic

    then = {"study": "outlay validate {0}, then outlay study {0}", "campaign": "name your prompts in it, then outlay campaign plan {0}"}
    if kind not in then:
        raise ConfigError(f"cannot init '{kind}'; {near(kind, then)}")
    path = path or Path(f"{kind}.yaml")
    if path.exists():
        raise ConfigError(f"{path} is there already; choose another path")
    write_atomic(path, files("outlay").joinpath(f"templates/{kind}.yaml").read_bytes())
    typer.echo(f"wrote {path}; next: {then[kind].format(path)}")


@app.command()
def schema() -> None:
    """Print the JSON schema of a study's config, for editors that complete and check YAML.

    Example: outlay schema > study.schema.json
    """
    import json

    from .config import StudyConfig

    typer.echo(json.dumps(StudyConfig.model_json_schema(), indent=1))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run directory.", show_default=False)],
    campaign: Annotated[str, typer.Argument(help="Campaign id: a folder name under RUN/campaigns.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write dataset/ and model/ into.", show_default=False)],
    merge: Annotated[bool, typer.Option("--merge", help="Write the whole model with its tokenizer: a folder that another config may name as its model.")] = False,
    push: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Upload both to the hub, as private repositories.", show_default=False)] = None,
) -> None:
    """Write what a campaign bought as a data set folder and its model as a model folder, each with a card.

    Example: outlay export runs/quickstart mean_entropy-m4-even-cold-b128-s0 --out exported
    """
    from . import export as exporting

    folders = exporting.export(run, campaign, out, merge=merge)
    for line in [*map(str, folders), *(exporting.push(folders, push) if push else [])]:
        typer.echo(line)


@app.command("list")
def list_parts(kind: Annotated[str, typer.Argument(help=", ".join(KINDS), show_default=False)]) -> None:
    """List the parts of a kind with their options and sources.

    Example: outlay list strategies
    """
    import dataclasses
    import inspect

    from .errors import near
    from .registry import cards

    if kind not in KINDS:
        raise ConfigError(f"cannot list '{kind}'; {near(kind, KINDS)}")
    hidden = {"runtime", "benchmark", "items", "vault", "journal", "run", "quota", "workers"}  # filled in by the program
    for card in cards(KINDS[kind]):
        marks = [m for m, on in (("nested", card.nested), ("reads groups", card.reads_groups)) if on]
        needs = f"; needs {', '.join(sorted(card.needs))}" if card.needs else ""
        typer.echo(f"{card.name}: {card.summary}{needs}{'; ' + ', '.join(marks) if marks else ''}")
        for option, default in card.options.items():
            if option not in hidden:
                required = default in (inspect.Parameter.empty, dataclasses.MISSING)
                typer.echo(f"    {option}{'' if required else f' = {default!r}'}")
        if card.source:
            typer.echo(f"    source: {card.source}")


def _complete(run: Path) -> None:
    """ConfigError if a stage is missing."""
    from .progress import stage_files
    from .store import Store

    files = stage_files(Store(run).read("study.json", dict))
    missing = [f for f in files if not (run / f).exists()]
    if missing:
        raise ConfigError(f"{run} is not finished: {len(missing)} of {len(files)} stages are missing; run the same `outlay study` command again to resume it")


def _show(run: Path) -> None:
    from .report import summary, write_report

    page = write_report(run)
    summary.show(run)
    typer.echo(f"report: {page}")


def main() -> None:
    """Entry point: users see one line for an OutlayError, never a traceback."""
    try:
        app()
    except AwaitingAnnotations as waiting:
        print(waiting, file=sys.stderr)
        raise SystemExit(3) from None
    except CapReached as stopped:
        print(stopped, file=sys.stderr)
        raise SystemExit(4) from None
    except OutlayError as bad:
        print(f"error: {bad}", file=sys.stderr)
        raise SystemExit(2 if isinstance(bad, ConfigError) else 1) from None


if __name__ == "__main__":
    main()
