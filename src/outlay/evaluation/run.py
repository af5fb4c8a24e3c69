"""Evaluate a model on a benchmark: item by item into result files, then the summary. The same call again goes on where it stopped."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError, RunConflict
from ..evaluators.ask import Answered
from ..evaluators.items import Benchmark
from ..store import Store, dumps, fingerprint, write_atomic
from ..types import Model
from . import summary
from .config import EvalConfig, Mode
from .journal import Journal
from .progress import Progress

Backend = Literal["outlay", "vllm", "lm-eval"]


@dataclass(frozen=True, slots=True)
class Done:
    """What an evaluation gave: the rows of its table, and the files that it wrote."""

    rows: list[dict[str, Any]]
    files: list[Path]


def evaluate(config: EvalConfig, mode: Mode, *, quiet: bool = False, backend: Backend = "outlay") -> Done:
    """Evaluate, or go on with an evaluation; into config.output_dir, for each task TASK_MODEL.jsonl and TASK_MODEL.txt, then
    summary_MODE_MODEL.json and .csv. What an earlier run has left there is kept. backend: "vllm" decodes with vLLM, "lm-eval" asks and scores as
    lm-evaluation-harness does.

    Raises ConfigError or DataError for bad input before anything is written, RunConflict for results of other settings.
    """
    from ..engine.load import arch, load, resolve
    from ..engine.runtime import Runtime

    runtime = Runtime(dtype=config.dtype, device=config.device, minibatch=config.batch_size, threads=config.cores)
    where = resolve(config.model_name)
    notes = []
    if mode == "mmlu":
        style, why = _style(config, arch(config.model_name).parameters)
        notes.append(f"MMLU in {why}")
        bench = _benchmark(config, mode, style)
    else:
        bench = _benchmark(config, mode)
    ask, scorer = _asker(config, mode, backend)
    if backend == "lm-eval":
        bench = _as_sent(bench, config)
    notes += [*bench.notes, _sizes(bench, config), *_flawed(bench)]
    name = f"{mode}_{config.suffix}"
    settings = {"backend": scorer} | _settings(config, mode, bench, where, backend)
    store = Store(_writable(config.output_dir))
    with store.lock(f".lock_{name}"):
        _same(store, f"settings_{name}.json", settings)
        journals = {task: Journal(store.root / f"{task}_{config.suffix}.jsonl", fingerprint(settings), items) for task, items in bench.tasks.items()}
        before = sum(len(journal.done) for journal in journals.values())
        if not quiet:
            for note in notes:
                print(note, file=sys.stderr)
            if before:
                print(f"resuming: {before} of {len(bench.items)} items are there already", file=sys.stderr)
        loaded = load(Model(config.model_name), runtime) if before < len(bench.items) else None
        write_atomic(store.root / f"settings_{name}.json", dumps(settings))
        with runtime.active(), Progress(len(bench.items), before, quiet=quiet) as progress:
            _answer(partial(ask, loaded, bench), journals, progress, task_by_task=bench.alike)
        results = {task: journal.done for task, journal in journals.items()}
        files = [_text(store.root / f"{task}_{config.suffix}.txt", rows) for task, rows in results.items()]
        rows = summary.table(results)
        remarks = Counter(row["note"] for items in results.values() for row in items if "note" in row)
        facts = {"settings": settings, "items": bench.fingerprint, "notes": notes, "flawed_items": bench.flaws}
        files += summary.write(store.root, name, rows, facts | ({"scored_otherwise": dict(sorted(remarks.items()))} if backend == "lm-eval" else {}))
    if remarks and not quiet:
        print("the strict rule scores some of these responses otherwise: " + ", ".join(f"{count} ({why})" for why, count in remarks.most_common()), file=sys.stderr)
    too_long = [row for items in results.values() for row in items if row["too_long"]]
    if too_long and not quiet:
        first, fate = too_long[0], "count as wrong" if backend != "lm-eval" else "were cut at their beginning by the harness"
        print(f"{len(too_long)} prompts do not fit into the model's context and {fate}, the first is {first['id']} ({first['prompt_tokens']} tokens); use fewer shots", file=sys.stderr)
    return Done(rows, files)


def _asker(config: EvalConfig, mode: Mode, backend: Backend) -> tuple[Callable[..., Any], str]:
    """What asks (loaded, bench, items, on_answer=...), and its name with the version."""
    common = {"minibatch": config.batch_size, "max_new_tokens": _limit(config, mode)}
    if backend == "vllm":
        from ..engine.vllm_backend import installed
        from ..evaluators.ask import ask

        if mode == "mmlu":
            raise ConfigError("mode mmlu compares the likelihoods of choices, and backend 'vllm' only decodes; leave the backend out")
        return partial(ask, chat=config.chat, backend=backend, **common), installed()
    if backend == "outlay":
        from ..evaluators.ask import ask

        return partial(ask, chat=config.chat, **common), backend
    from importlib.metadata import version

    from ..evaluators import lm_eval

    if config.chat:
        raise ConfigError("backend 'lm-eval' asks without a chat template; set chat=false, or leave the backend out")
    lm_eval.installed()
    return partial(lm_eval.ask, shots=config.shots, folder=config.mmlu_dir, **common), f"lm-eval {version('lm_eval')}"


def _as_sent(bench: Benchmark, config: EvalConfig) -> Benchmark:
    from ..evaluators.lm_eval import as_sent

    return as_sent(bench, shots=config.shots, folder=config.mmlu_dir)


def _answer(ask: Callable[..., Any], journals: dict[str, Journal], progress: Progress, *, task_by_task: bool) -> None:
    """Ask for what is missing: task by task, so that what its prompts share is read once, or all at once where they share nothing."""

    def keep(answered: Answered) -> None:
        task = answered.item.task
        journal = journals[task]
        journal.add(answered)
        progress.item(task, sum(row["correct"] for row in journal.done), len(journal.done), len(journal.items))

    parts = [[journal] for journal in journals.values()] if task_by_task else [list(journals.values())]
    for part in parts:
        left = [item for journal in part for item in journal.left]
        try:
            if left:
                ask(left, on_answer=keep)
        finally:
            for journal in part:
                journal.close()


def _benchmark(config: EvalConfig, mode: Mode, style: Any = None) -> Benchmark:
    from ..evaluators.bbh import bbh
    from ..evaluators.flan import flan
    from ..evaluators.mmlu import mmlu

    common = {"tasks": config.tasks, "max_items": config.MAX_EXAMPLES, "seed": config.seed}
    if mode == "bbh":
        return bbh(folder=config.bbh_dir, cot=config.cot, shots=config.shots, smoke=config.smoke, **common)
    if mode == "flan":
        return flan(file=config.flan_file, cot=config.cot, shots=config.shots, **common)
    return mmlu(style=style, folder=config.mmlu_dir, shots=5 if config.shots is None else config.shots, **common)


def _style(config: EvalConfig, parameters: int) -> tuple[str, str]:
    from ..evaluators.mmlu import style_for

    return style_for(parameters) if config.format == "auto" else (config.format, f"{config.format} format, as the config says")


def _limit(config: EvalConfig, mode: Mode) -> int:
    return {"bbh": config.BBH_MAX_TOKEN_LENGTH, "flan": config.FLAN_MAX_NEW_TOKENS, "mmlu": 0}[mode]


def _settings(config: EvalConfig, mode: Mode, bench: Benchmark, where: str, backend: Backend) -> dict[str, Any]:
    """All that an answer depends on, but the item itself: results of other settings are never mixed with ours."""
    from ..evaluators.ask import UNTIL
    from ..store import hash_folder

    weights = hash_folder(Path(where)) if Path(where).is_dir() else where
    common = {"mode": mode, "model_name": config.model_name, "weights": weights, "chat": config.chat, "dtype": config.dtype, "shots": config.shots, "seed": config.seed}
    if mode == "mmlu":
        return common | {"format": "cloze" if bench.per_character else "letter"}
    until = {"until": list(UNTIL[bench.answers])} if backend != "lm-eval" else {}  # the harness has its own
    return common | {"smoke": not bench.alike, "cot": config.cot, "max_new_tokens": _limit(config, mode)} | until


def _sizes(bench: Benchmark, config: EvalConfig) -> str:
    drawn = f", at most {config.MAX_EXAMPLES} of each (MAX_EXAMPLES; null: all)" if config.MAX_EXAMPLES else ""
    return f"{len(bench.items)} items of {len(bench.tasks)} tasks{drawn}"


def _flawed(bench: Benchmark) -> list[str]:
    if not bench.flaws:
        return []
    first, why = next(iter(bench.flaws.items()))
    return [f"{len(bench.flaws)} of them cannot be scored right for sure, e.g. {first}: {why}; they count as they stand, and the summary lists them"]


def _writable(folder: Path) -> Path:
    """The folder, made if it is not there. ConfigError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as bad:
        raise ConfigError(f"the output folder {folder} cannot be written ({bad.strerror}); choose another with --out or output_dir") from None
    return folder


def _same(store: Store, path: str, settings: dict[str, Any]) -> None:
    """RunConflict names the first setting in which the results in the folder differ."""
    if not (store.root / path).exists():
        return
    old = store.read(path, dict)
    for key in [*settings, *old]:
        if old.get(key) != settings.get(key):
            raise RunConflict(f"{store.root / path} says that results of another config are there: {key} was {old.get(key)!r}, is {settings.get(key)!r}; choose another folder with --out, or move those away")


def _text(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Question and response of each item, and what was read out of it."""
    parts = []
    for row in rows:
        verdict = "right" if row["correct"] else "right but for its form" if row["lenient"] else "wrong"
        read = "prompt too long, not asked" if row["too_long"] else f"read {row['answer']!r}"
        parts.append(f"[{row['id']}]\nQ: {row['question']}\nA: {row['response'].strip()}\n-> {read}, target {row['target']!r}: {verdict}\n")
    write_atomic(path, "\n".join(parts).encode())
    return path


