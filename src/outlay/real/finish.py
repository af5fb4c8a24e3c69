"""`outlay campaign finish`: the final model, what was bought and where each item came from, and a report."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import export
from ..errors import ConfigError
from ..measure.stats import accuracy_interval
from ..oracles import handoff
from ..oracles.mixed import FILE as MACHINE
from ..store import Store, write_atomic
from ..types import Annotation, Batch, Evaluation, Model, Prompt, Selection
from . import report, shadow
from .setup import DEV, Live, opened, test_table
from .state import state_of


def finish(root: Path, say: Callable[[str], None] = lambda line: None, *, leave_open: bool = False) -> list[Path]:
    """Write RUN/final: dataset/ (train.jsonl, dev.jsonl, provenance.jsonl, README.md), model/ and report.html. -> their paths. With
    `leave_open`, the judgements that no model was trained on lie beside, in not-trained-on.jsonl.

    Made beside and put in place when whole, so it can be repeated and killed. ConfigError where no round is trained on yet, or where
    answers of a later round would be left out.
    """
    with Store(root).lock(".lock"):
        live = opened(root)
        rounds = live.trained()
        if not rounds:
            raise ConfigError(f"no round of {root} is trained on yet; run `outlay campaign next` first")
        state = state_of(live)
        pending = sum(len(stage.judgements) for stage in state.rounds if not stage.trained)
        if pending and not leave_open:
            raise ConfigError(f"round {rounds + 1} has {pending} judgements that no model was trained on; complete it and run `outlay campaign next`, or finish with --leave-open")
        shadow.compare(live, rounds, say)
        if (found := shadow.comparison(live)) is not None:
            say(f"is it worth it: {found.words(live.config.strategy)}")
        tests = _test(live, rounds)
        final, making, old = root / "final", root / ".final", root / ".final.old"
        for left in (making, old):  # of a killed process
            shutil.rmtree(left, ignore_errors=True)
        export.export(root, live.campaign.id, making, rounds=rounds)
        rows = list(provenance(live))
        write_atomic(making / "dataset/provenance.jsonl", _jsonl(rows))
        if live.config.dev_items and (root / DEV).exists():
            write_atomic(making / "dataset/dev.jsonl", _jsonl(_dev(live)))
        if pending:
            late = [line for stage in state.rounds if not stage.trained for line in handoff.lines(handoff.folder(root, stage.number) / "annotations.jsonl")]
            write_atomic(making / "dataset/not-trained-on.jsonl", _jsonl(late))
        write_atomic(making / "report.html", report.page(state, tests, rows).encode())
        if final.exists():
            os.replace(final, old)
        os.replace(making, final)
        shutil.rmtree(old, ignore_errors=True)
    return [final / "dataset", final / "model", final / "report.html"]


def provenance(live: Live) -> Iterator[dict[str, Any]]:
    """One row per prompt that was asked and answered or skipped: why it was asked, by which model, when, who answered, in how many seconds."""
    store = live.store
    if (live.root / DEV).exists():
        batch = store.read(DEV, Batch)
        yield from (_row(live, 0, "dev", a, {"chosen_by": None}) for a in batch.annotations)
    chooser = {"base": live.config.model, "digest": live.bench.study["model"], "round": 0}
    for number, folder in enumerate(live.folders, 1):
        if not (live.root / folder / "batch.json").exists():
            return
        answers = {a.prompt_id: a for a in store.read(f"{folder}/batch.json", Batch).annotations}
        for path in (f"{folder}/selection.json", f"{folder}/selection-again.json"):
            if (live.root / path).exists():
                yield from _chosen(live, number, store.read(path, Selection), answers, chooser)
        if (live.root / folder / "model.json").exists():
            model = store.read(f"{folder}/model.json", Model)
            chooser = {"base": model.base, "digest": model.digest, "round": number}


def _chosen(live: Live, number: int, selection: Selection, answers: dict[str, Annotation], chooser: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for at, key in enumerate(selection.ids):
        sliced = at >= len(selection.ids) - selection.audit
        why: dict[str, Any] = {"strategy": None if sliced else live.asked.how, "rank": at + 1, "score": selection.scores[at] if selection.scores else None}
        if selection.represents and selection.nearest and selection.examples:
            near = selection.nearest[at]
            why |= {"represents": selection.represents[at], "represents_examples": list(selection.examples[at]), "nearest_bought": near and near[0], "similarity": near and near[1]}
        yield _row(live, number, "random slice" if sliced else "chosen", answers[key], why | {"chosen_by": None if sliced else chooser})


def _row(live: Live, number: int, role: str, answer: Annotation, why: dict[str, Any]) -> dict[str, Any]:
    folder = handoff.folder(live.root, number)
    lines = [line for name in ("annotations.jsonl", MACHINE) for line in handoff.lines(folder / name)]
    judgements = [line for line in lines if line["prompt_id"] == answer.prompt_id and "kind" in line]
    added = {} if (since := live.added.get(answer.prompt_id)) is None else {"added": since}
    row: dict[str, Any] = {"id": answer.prompt_id, "round": number, "role": role, "kind": answer.kind, "annotator": answer.annotator, "seconds": answer.seconds} | added | why
    said = ("chosen", "rejected") if live.config.judgements == "preferences" else ("response",)
    return row | {"judgements": [{name: line.get(name) for name in ("annotator", "kind", *said, "seconds", "at", "reason")} for line in judgements]}


def _dev(live: Live) -> Iterator[dict[str, Any]]:
    by_id = {prompt.id: prompt for prompt in live.dev_prompts()}
    for a in live.store.read(DEV, Batch).annotations:
        if a.kind == "response":
            yield {"prompt": by_id[a.prompt_id].text, "completion": a.response, "id": a.prompt_id, "group": by_id[a.prompt_id].group, "annotator": a.annotator}


def _test(live: Live, rounds: int) -> dict[str, Any]:
    """Accuracy of the base and of the final model on the test set: looked at here for the first time. Empty where there is none."""
    if live.config.test_set is None:
        return {}
    table, path = test_table(live.config), "shared/tests/test.parquet"
    if not (live.root / path).exists():
        columns = table.to_pydict()
        prompts = [Prompt(*row) for row in zip(columns["id"], columns["text"], columns["group"], strict=True)]
        live.write_items(path, prompts, [Annotation(p.id, response=r) for p, r in zip(prompts, columns["response"], strict=True)])
    folder = live.folders[rounds - 1]
    model = live.store.read(f"{folder}/model.json", Model)
    base = live.store.keep("shared/base/evaluation-test.parquet", Evaluation, lambda: live.grade(live.bench.base, path, "test"))
    last = live.store.keep(f"{folder}/evaluation-test.parquet", Evaluation, lambda: live.grade(replace(model, weights=str(live.root / str(model.weights))), path, "test"))
    return {name: accuracy_interval(e.columns["correct"]) for name, e in (("base model", base), ("final model", last))}


def _jsonl(rows: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
