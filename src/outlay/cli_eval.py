"""`outlay eval`: a model on BBH, MMLU or FLAN, or stored responses scored again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import ConfigError, near

MODES = ("bbh", "flan", "mmlu")
BACKENDS = ("outlay", "vllm", "lm-eval")


def evaluate(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override keys of the config, e.g. MAX_EXAMPLES=10 shots=0.", show_default=False)] = None,
    config: Annotated[Path | None, typer.Option(help="JSON or YAML file; a bare name is looked for in configs/ too.", show_default=False)] = None,
    mode: Annotated[str, typer.Option("--mode", "--data", help="bbh, flan or mmlu.")] = "bbh",
    cot: Annotated[bool | None, typer.Option("--cot/--answer-only", help="Ask for reasoning, or for the answer alone (default: the config's `cot`, else reasoning).", show_default=False)] = None,
    rescore: Annotated[Path | None, typer.Option(help="Score stored responses again, without a model: a JSONL file (also .gz) or a folder of them.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results (default: the config's output_dir).", show_default=False)] = None,
    backend: Annotated[str, typer.Option(help=", ".join(BACKENDS) + ": what asks and scores. vllm: decoded by vLLM (pip install 'outlay[vllm]'); lm-eval: by lm-evaluation-harness (pip install 'outlay[lm-eval]').")] = "outlay",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only the table.")] = False,
) -> None:
    """Evaluate a model on BBH, MMLU or FLAN questions. The same command again goes on where it stopped.

    Example: outlay eval --config config_smollm2.json --mode bbh MAX_EXAMPLES=10
    """
    if mode not in MODES:
        raise ConfigError(f"unknown --mode '{mode}'; {near(mode, MODES)}")
    if backend not in BACKENDS:
        raise ConfigError(f"unknown --backend '{backend}'; {near(backend, BACKENDS)}")
    if rescore is not None:
        _rescore(rescore, mode, True if cot is None else cot, out)
        return
    if config is None:
        raise ConfigError("eval needs --config FILE, e.g. --config config_smollm2.json; or --rescore FILE for responses that are there")
    from .evaluation import evaluate as run
    from .evaluation import load, summary

    settings = load(config, overrides or [])
    settings = settings.model_copy(update=({"output_dir": out} if out else {}) | ({} if cot is None else {"cot": cot}))
    try:
        done = run(settings, mode, quiet=quiet, backend=backend)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise
    typer.echo(summary.show(done.rows))
    typer.echo(f"results: {done.files[-1]} and .json, with one .txt and .jsonl for each task beside them")


def _rescore(path: Path, mode: str, cot: bool, out: Path | None) -> None:
    from .evaluation import summary
    from .evaluation.rescore import rescore

    if mode == "mmlu":
        raise ConfigError("--rescore reads answers out of texts, and mode mmlu compares likelihoods: there is nothing to read; use --mode bbh or flan")
    rows = summary.table(rescore(path, cot=cot))
    typer.echo(summary.show(rows))
    if out is not None:
        facts = {"settings": {"mode": mode, "cot": cot, "rescored": str(path)}}
        for file in summary.write(out, f"{mode}_{path.name.split('.')[0]}", rows, facts):
            typer.echo(f"wrote {file}")
