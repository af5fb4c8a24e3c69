"""`outlay campaign ...` and `outlay annotate`: a campaign with annotators."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import AwaitingAnnotations, ConfigError, DataError

if TYPE_CHECKING:
    from .real.config import CampaignConfig
    from .real.setup import Live

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""A campaign with annotators: Outlay decides what is asked next, people answer in their own time. Every command can be repeated and
goes on where things stand; `status` says what to do next.""",
)

Target = Annotated[Path, typer.Argument(metavar="CONFIG_OR_RUN", help="YAML or JSON file of the campaign, or its run directory.", show_default=False)]
Out = Annotated[Path | None, typer.Option(help="Run directory (default: runs/NAME).", show_default=False)]


def _where(target: Path, out: Path | None) -> tuple[CampaignConfig, Path]:
    """The config and the run directory that the user means."""
    from .real.config import load
    from .real.setup import opened

    if target.is_dir():
        if out is not None:
            raise ConfigError(f"{target} is a run directory already; leave out --out, or name the config")
        return opened(target).asked, target
    config = load(target)
    return config, out or Path("runs") / config.name


def _asked(root: Path) -> list[dict[str, Any]]:
    """The requests that wait for an answer."""
    from .oracles import handoff

    return [line for folder in handoff.folders(root) for waiting in [handoff.waiting(folder)] for line in handoff.requests(folder) if line["id"] in waiting]


def _status(live: Live, target: Path) -> None:
    from .real.state import state_of
    from .real.status import lines

    for line in lines(state_of(live), str(target)):
        typer.echo(line)


@app.command()
def plan(target: Target, out: Out = None, quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress of the replay.")] = False) -> None:
    """Print price and days, and which strategy and number of rounds to take, with reasons: by replay where the config names a labelled sample.

    Example: outlay campaign plan campaign.yaml
    """
    from .real.plan import lines

    for line in lines(*_where(target, out), quiet=quiet):
        typer.echo(line)


@app.command("next")
def next_round(target: Target, out: Out = None) -> None:
    """Go on: take what came back, train, evaluate, score the pool, choose the next batch and hand it over. Exit code 3: people have to answer.

    Example: outlay campaign next campaign.yaml
    """
    from .real import flow
    from .real.setup import opened

    config, root = _where(target, out)
    try:
        live = flow.next_round(config, root, lambda line: typer.echo(line, err=True))
    except AwaitingAnnotations:
        _status(opened(root), target)
        raise
    _status(live, target)


@app.command()
def export(
    target: Target,
    file: Annotated[Path, typer.Argument(help="File to write.", show_default=False)],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="label-studio, argilla, prodigy, doccano, csv or jsonl.")] = "jsonl",
    out: Out = None,
) -> None:
    """Write what waits for an answer as a file of the annotation tool that you use; `import` takes the answers back.

    Example: outlay campaign export campaign.yaml tasks.json --to label-studio
    """
    from .annotate.formats import write

    _, root = _where(target, out)
    asked = _asked(root)
    if not asked:
        raise DataError(f"nothing waits for an answer in {root}; `outlay campaign status {target}` says what to do")
    for path in write(asked, file, to):
        typer.echo(path)
    typer.echo(f"{len(asked)} prompts; next: outlay campaign import {target} ANSWERS --from {to}")


@app.command("import")
def bring_in(
    target: Target,
    files: Annotated[list[Path], typer.Argument(help="What an annotation tool exported, or JSONL or CSV.", show_default=False)],
    source: Annotated[str | None, typer.Option("--from", metavar="FORMAT", help="label-studio, argilla, prodigy, doccano, csv or jsonl (default: found from the content).", show_default=False)] = None,
    annotator: Annotated[str, typer.Option(help="Who answered, where the files do not say.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")] = False,
    out: Out = None,
) -> None:
    """Take in what annotators answered: all of it or nothing, with the reasons. The same files again change nothing.

    Example: outlay campaign import campaign.yaml export.json --from label-studio
    """
    from .annotate.imports import bring_in as collect
    from .real.setup import opened

    _, root = _where(target, out)
    verdict = collect(root, files, source, annotator=annotator, dry_run=dry_run)
    typer.echo(verdict.text, err=not verdict.ok)
    if not verdict.ok:
        raise DataError("nothing was imported")
    if not dry_run:
        _status(opened(root), target)


@app.command("label-studio")
def label_studio(
    target: Target,
    url: Annotated[str, typer.Argument(help="Address of the server, e.g. http://127.0.0.1:8080.", show_default=False)],
    title: Annotated[str | None, typer.Option(help="Title of the project there (default: the campaign's name).", show_default=False)] = None,
    key_env: Annotated[str, typer.Option(help="Environment variable that holds your token.")] = "LABEL_STUDIO_API_KEY",
    out: Out = None,
) -> None:
    """Take in what was answered on a Label Studio server, and put what waits for an answer there as tasks. Repeat it at will.

    Example: outlay campaign label-studio campaign.yaml http://127.0.0.1:8080
    """
    from .annotate.bridge import LabelStudio
    from .annotate.imports import take

    config, root = _where(target, out)
    server = LabelStudio(url=url, title=title or f"outlay {config.name}", key_env=key_env)
    verdict = take(root, server.pull())
    typer.echo(verdict.text, err=not verdict.ok)
    if not verdict.ok:
        raise DataError("nothing was imported, and no task added")
    asked = _asked(root)
    typer.echo(f"{server.push(asked) if asked else 0} tasks are new in project '{server.title}'; {len(asked)} prompts wait for an answer")


@app.command()
def add(
    target: Target,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be added; change nothing.")] = False,
    out: Out = None,
) -> None:
    """Take prompts that are new in the pool file into a campaign that has begun. Nothing else may be different; what was asked so far stays.

    Example: outlay campaign add campaign.yaml --dry-run
    """
    from .real.add import add as take_in
    from .real.setup import opened

    config, root = _where(target, out)
    typer.echo(take_in(config, root, dry_run=dry_run))
    if not dry_run:
        _status(opened(root), target)


@app.command()
def status(target: Target, out: Out = None) -> None:
    """Print where the campaign stands, what more annotations are expected to bring, and what to do next.

    Example: outlay campaign status campaign.yaml
    """
    from .real.setup import opened
    from .real.status import not_begun

    _, root = _where(target, out)
    if not (root / "campaign.json").exists():
        typer.echo(not_begun(str(target), root))
        return
    _status(opened(root), target)


@app.command()
def finish(
    target: Target,
    out: Out = None,
    leave_open: Annotated[bool, typer.Option("--leave-open", help="Stop although a round has answers that no model was trained on; they are written beside the data set.")] = False,
) -> None:
    """Write the final model, the bought data set with where each item came from, and a report, into RUN/final. Works after any round. With a
    shadow arm, say whether the strategy was worth it.

    Example: outlay campaign finish campaign.yaml
    """
    from .real.finish import finish as end

    _, root = _where(target, out)
    for path in end(root, lambda line: typer.echo(line, err=True), leave_open=leave_open):
        typer.echo(path)


def annotate(
    target: Target,
    out: Out = None,
    host: Annotated[str, typer.Option(help="Address to listen at; only this machine unless changed.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.")] = 0,
    links: Annotated[int, typer.Option(min=1, help="How many one-time links to print: one for each annotator.")] = 1,
) -> None:
    """Open the local annotation page of a campaign. It shows what waits for an answer; stop it with Ctrl-C, start it again at will.

    Example: outlay annotate campaign.yaml --links 2
    """
    from .annotate.page import serve

    _, root = _where(target, out)
    serve(root, host=host, port=port, links=links, say=typer.echo)
