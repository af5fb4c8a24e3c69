"""lm-evaluation-harness on the same local items: for people who need its numbers. Nothing is read from the hub.

The harness's own task files are included and only their data replaced, so prompts, stop strings, filters and metrics are its own
(Gao et al., https://github.com/EleutherAI/lm-evaluation-harness, version 0.4.13).
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.load import Loaded
from ..errors import ConfigError
from .answers import MARKER, score
from .ask import Answered
from .items import Benchmark, Item
from .mmlu import LETTERS, reader

# benchmark and kind of answer -> the harness's task file
TEMPLATES = {
    ("bbh", "reasoned"): "bbh/cot_fewshot/{}.yaml",
    ("bbh", "direct"): "bbh/fewshot/{}.yaml",
    ("mmlu", "letter"): "mmlu/default/mmlu_{}.yaml",
    ("mmlu", "cloze"): "mmlu/continuation/mmlu_{}.yaml",
}
INVALID = "[invalid]"  # what the harness reads where its filter finds nothing


def ask(
    loaded: Loaded, bench: Benchmark, items: Sequence[Item], *, minibatch: int, max_new_tokens: int, shots: int | None = None, folder: Path | None = None,
    on_answer: Callable[[Answered], None] | None = None,
) -> list[Answered]:  # fmt: skip
    """As ask.ask, by the harness: put these items to the model; -> in their order. Items of as_sent() say what it really sends.

    `answer` is what the harness's filter reads and `correct` its score; `lenient` is our rule on the same response, and `note` says
    why our strict rule scores it otherwise. A prompt that does not fit the context is cut at its beginning by the harness; it is
    marked `too_long`. shots, folder: as in opened(). Raises ConfigError as opened() does.
    """
    done: list[Answered | None] = [None] * len(items)
    with opened(bench, items, shots=shots, folder=folder, max_new_tokens=max_new_tokens) as tasks, _quiet(), _own_limit(loaded):
        from lm_eval.evaluator import evaluate

        lm = model(loaded, minibatch)
        for name, task in tasks.items():
            mine = [row for row, item in enumerate(items) if item.task == name]
            lengths = [len(lm.tok_encode(items[row].prompt)) for row in mine]
            # As the harness orders them, and one minibatch at a time, so that an interrupted run loses no more than one.
            order = sorted(range(len(mine)), key=lambda i: -lengths[i])
            for start in range(0, len(order), minibatch):
                part = sorted(order[start : start + minibatch])
                out = evaluate(lm, {"tasks": {task.task_name: task}}, samples={task.task_name: part}, bootstrap_iters=0)
                for sample in out["samples"][task.task_name]:
                    i = sample["doc_id"]
                    read = _generated if bench.name == "bbh" else _chosen
                    answered = read(lm, bench, items[mine[i]], sample, lengths[i], max_new_tokens)
                    done[mine[i]] = answered
                    if on_answer is not None:
                        on_answer(answered)
    return [answered for answered in done if answered is not None]


def as_sent(bench: Benchmark, *, shots: int | None = None, folder: Path | None = None) -> Benchmark:
    """The benchmark with the prompts that the harness sends instead of ours. Options and errors as in opened()."""
    items = {}
    with opened(bench, bench.items, shots=shots, folder=folder) as tasks:
        for name, task in tasks.items():
            items[name] = [replace(item, prompt=prompt) for item, prompt in zip(bench.tasks[name], rendered(task), strict=True)]
    note = f"prompts and scores of lm-evaluation-harness {version('lm_eval')}: what is called strict is its own score, lenient is our rule"
    return replace(bench, tasks=items, notes=(*bench.notes, note))


def model(loaded: Loaded, minibatch: int) -> Any:
    """The harness's view of a loaded model, without its progress bars."""
    from lm_eval.models.huggingface import HFLM

    class Silent(HFLM):
        def generate_until(self, requests, disable_tqdm=True):
            return super().generate_until(requests, disable_tqdm=True)

        def loglikelihood(self, requests, disable_tqdm=True):
            return super().loglikelihood(requests, disable_tqdm=True)

    with _quiet():
        return Silent(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=minibatch, max_length=loaded.context)


@contextmanager
def opened(bench: Benchmark, items: Sequence[Item], *, shots: int | None = None, folder: Path | None = None, max_new_tokens: int | None = None) -> Iterator[dict[str, Any]]:
    """The harness's task objects over these items of BBH or MMLU, by task; they live as long as the block.

    shots: worked examples, the first ones (None: 3 for BBH, which come with the harness, and 5 for MMLU). folder: where MMLU lies, as
    for mmlu(). max_new_tokens: where responses are cut off (None: the harness's own limit). Raises ConfigError where the harness is
    not installed, has no such benchmark, or has the questions of a smoke set among its worked examples.
    """
    root = installed()
    kind = bench.answers if bench.answers != "chosen" else "cloze" if bench.per_character else "letter"
    if (bench.name, kind) not in TEMPLATES:
        raise ConfigError(f"backend 'lm-eval' evaluates bbh and mmlu, not {bench.name}; leave the backend out")
    template = TEMPLATES[bench.name, kind]
    names = list(dict.fromkeys(item.task for item in items))
    rows = _bbh_rows(items) if bench.name == "bbh" else _mmlu_rows(items, names, folder)
    with tempfile.TemporaryDirectory(prefix="outlay-lm-eval-") as place:
        for name in names:
            _write(Path(place), name, rows[name], root / template.format(name))
        with _quiet():
            from lm_eval.tasks import TaskManager

            found = TaskManager(include_path=place, include_defaults=False).load([f"outlay_{name}" for name in names])["tasks"]
        tasks = {name: found[f"outlay_{name}"] for name in names}
        for name, task in tasks.items():
            task.set_fewshot_seed(None)  # its examples are the first ones: nothing is drawn
            task.set_config(key="num_fewshot", value=shots if shots is not None else 3 if bench.name == "bbh" else 5)
            if bench.name == "bbh":
                if max_new_tokens is not None:
                    task.set_config(key="generation_kwargs", value={"max_gen_toks": max_new_tokens}, update=True)
                if {row["input"] for row in rows[name]["test"]} & {example["input"] for example in task.fewshot_docs()}:
                    raise ConfigError(f"backend 'lm-eval' cannot evaluate a smoke set: questions of {name} are among the worked examples that it shows; give it BBH itself (bbh_dir)")
        yield tasks


def installed() -> Path:
    """The folder of the harness's task files. Raises ConfigError if it, or something that it needs, is not installed."""
    try:
        import lm_eval.evaluator
    except ImportError as missing:
        raise ConfigError(f"backend 'lm-eval' needs lm-evaluation-harness with all that it needs ({missing}); run: pip install 'outlay[lm-eval]'") from None
    return Path(lm_eval.__file__).parent / "tasks"


def rendered(task: Any) -> list[str]:
    """The prompts that the harness sends for a task of opened(), in the order of its items."""
    with _quiet():
        task.build_all_requests()
    return [request.args[0] for request in task.instances if request.idx == 0]


def stop_strings(task: Any) -> list[str]:
    """Where the harness cuts responses of a task of opened(), the end token aside."""
    return list(task.get_config("generation_kwargs")["until"])


def parting(response: str, target: str, answer: str, *, cot: bool) -> str:
    """Why the harness scores a response otherwise than the strict rule does; "" where it does not. answer: what the harness read.

    "first marker": it reads the first "the answer is ", the strict rule the last. "last character": its filter drops the last
    character of that line whatever it is, so that an answer without a full stop loses one of its own. "not stripped": of
    answer-only prompts it takes the whole response, with the blank before it, its full stop and further lines.
    """
    if score(response, target, cot=cot).correct == (answer == target):
        return ""
    if not cot:
        return "not stripped"
    return "first marker" if response.count(MARKER) > 1 else "last character"


def _bbh_rows(items: Sequence[Item]) -> dict[str, dict[str, list[dict]]]:
    """task -> split -> rows in the harness's columns."""
    rows: dict[str, dict[str, list[dict]]] = {}
    for item in items:
        rows.setdefault(item.task, {"test": []})["test"].append({"input": item.question, "target": item.target})
    return rows


def _mmlu_rows(items: Sequence[Item], subjects: Sequence[str], folder: Path | None) -> dict[str, dict[str, list[dict]]]:
    read, _ = reader(folder, subjects)
    rows = {}
    for subject in subjects:
        dev, test = ([{"question": q.text, "choices": list(q.choices), "answer": q.answer} for q in read(subject, split)] for split in ("dev", "test"))
        rows[subject] = {"dev": dev, "test": [test[int(item.id.rpartition("/")[2])] for item in items if item.task == subject]}
    return rows


def _write(place: Path, name: str, rows: Mapping[str, Sequence[dict]], template: Path) -> None:
    files = {split: place / f"{name}-{split}.jsonl" for split in rows}
    for split, file in files.items():
        file.write_text("".join(json.dumps(row) + "\n" for row in rows[split]))
    data = {"data_files": {split: str(file) for split, file in files.items()}, "cache_dir": str(place / "cache")}
    config = {"include": str(template), "task": f"outlay_{name}", "dataset_path": "json", "dataset_name": None, "dataset_kwargs": data}
    (place / f"{name}.yaml").write_text(json.dumps(config))  # JSON is YAML


def _generated(lm: Any, bench: Benchmark, item: Item, sample: Mapping[str, Any], length: int, limit: int) -> Answered:
    response, answer, cot = sample["resps"][0][0], sample["filtered_resps"][0], bench.answers == "reasoned"
    ours = score(response, item.target, cot=cot, question=item.question)
    tokens = len(lm.tok_encode(response, add_special_tokens=False))
    return Answered(
        item, response, answer, bool(answer.strip()) and answer != INVALID, bool(sample["exact_match"]), ours.lenient, cut_off=tokens >= limit,
        too_long=length + limit > lm.max_length, prompt_tokens=length, tokens=tokens, note=parting(response, item.target, answer, cot=cot),
    )  # fmt: skip


def _chosen(lm: Any, bench: Benchmark, item: Item, sample: Mapping[str, Any], length: int, limit: int) -> Answered:
    values = np.array([logprob for logprob, _ in sample["filtered_resps"]], dtype=np.float64)
    choices = sample["doc"]["choices"]
    best = int(np.argmax(values / np.array([len(text) for text in choices]) if bench.per_character else values))
    right = bool(sample["acc_norm" if bench.per_character else "acc"])
    longest = max(len(lm.tok_encode(text, add_special_tokens=False)) for _, text in sample["arguments"])
    return Answered(
        item, choices[best] if bench.per_character else LETTERS[best], LETTERS[best], True, right, right,
        too_long=length + longest > lm.max_length + 1, prompt_tokens=length, logprobs=tuple(round(float(v), 4) for v in values),
    )  # fmt: skip


@contextmanager
def _own_limit(loaded: Loaded) -> Iterator[None]:
    """Without the model's own max_new_tokens, which would silently win over the limit that the harness asks for."""
    config = loaded.model.generation_config
    before, config.max_new_tokens = config.max_new_tokens, None
    try:
        yield
    finally:
        config.max_new_tokens = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the harness's bars, one a step, and its warnings about a model handed over in memory."""
    import datasets
    from lm_eval.api import task
    from transformers.utils import logging as transformers

    logger = logging.getLogger("lm_eval")
    level, verbosity, bars, tqdm = logger.level, transformers.get_verbosity(), not datasets.are_progress_bars_disabled(), task.tqdm
    logger.setLevel(logging.ERROR)
    transformers.set_verbosity_error()
    datasets.disable_progress_bars()
    task.tqdm = partial(tqdm, disable=True)  # "Building contexts" has no option
    try:
        yield
    finally:
        task.tqdm = tqdm
        if bars:
            datasets.enable_progress_bars()
        transformers.set_verbosity(verbosity)
        logger.setLevel(level)
