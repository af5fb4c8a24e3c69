"""Parts called on a cluster by a driver that alone has the run directory: what a call needs goes along, what it makes comes back."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.folders import new_folder
from ..types import Annotation, Evaluation, Evaluator, Model, Pool, Prompt, R, Scorer, Signals, T, Trainer

if TYPE_CHECKING:
    from .ray import Crew


@dataclass(frozen=True, slots=True)
class Parcel:
    """Files in Ray's object store: the reference of name -> bytes, and a digest by which a process knows that it has them."""

    digest: str
    files: Any


class Away:
    """Parts as functions that have the same part called on the cluster. A model's weights enter the object store once, and each process fetches them once."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self._parcel = lru_cache(maxsize=2 * crew.size + 8)(lambda digest, path: Parcel(digest, crew.put(_read(path))))

    def scorer(self, part: Scorer) -> Scorer:
        def score(model: Model, pool: Pool, needs: frozenset[str], *, seed: int) -> Signals:
            return self.crew.call(f"scoring of {len(pool)} prompts", _score, part, *self._sent(model), pool, needs, seed)

        return score

    def trainer(self, part: Trainer) -> Trainer:
        def train(start: Model, prompts: Sequence[Prompt], annotations: Sequence[Annotation], out: Path, *, seed: int) -> Model:
            model, files = self.crew.call(f"training on {len(annotations)} annotations", _train, part, *self._sent(start), prompts, annotations, seed)
            _write(files, out)
            return replace(model, weights=str(out))

        return train

    def evaluator(self, name: str, part: Evaluator) -> Evaluator:
        """Items in the run directory go along; those of a benchmark must lie on the nodes."""

        def evaluate(model: Model, *, seed: int) -> Evaluation:
            bare, items = part, None
            if hasattr(part, "items"):
                bare, items = replace(part, items=Path()), self._parcel(sha256(part.items.read_bytes()).hexdigest()[:16], part.items)
            return self.crew.call(f"evaluation {name}", _evaluate, bare, items, *self._sent(model), seed)

        return evaluate

    def each(self, fn: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """As map: results in order, as many calls at once as there are processes."""
        return self.crew.map(fn, items)

    def _sent(self, model: Model) -> tuple[Model, Parcel | None]:
        return (replace(model, weights=None), self._parcel(model.digest, Path(model.weights))) if model.weights else (model, None)


def _score(part: Scorer, model: Model, weights: Parcel | None, pool: Pool, needs: frozenset[str], seed: int) -> Signals:
    return part(_here(model, weights), pool, needs, seed=seed)


def _evaluate(part: Any, items: Parcel | None, model: Model, weights: Parcel | None, seed: int) -> Evaluation:
    if items:
        part = replace(part, items=next(_unpacked("items", items).iterdir()))
    return part(_here(model, weights), seed=seed)


def _train(part: Trainer, start: Model, weights: Parcel | None, prompts: Sequence[Prompt], annotations: Sequence[Annotation], seed: int) -> tuple[Model, dict[str, bytes]]:
    with tempfile.TemporaryDirectory(prefix="outlay-training-") as place:
        model = part(_here(start, weights), prompts, annotations, Path(place, "model"), seed=seed)
        return model, _read(Path(place, "model"))


def _here(model: Model, weights: Parcel | None) -> Model:
    return replace(model, weights=str(_unpacked("weights", weights))) if weights else model


def _unpacked(kind: str, parcel: Parcel) -> Path:
    """The folder with the files, in this process's temporary place; it holds one parcel of a kind."""
    where = Path(_place().name, kind, parcel.digest)
    if not where.exists():
        import ray

        shutil.rmtree(where.parent, ignore_errors=True)
        _write(ray.get(parcel.files), where)
    return where


@cache
def _place() -> tempfile.TemporaryDirectory:
    """Removed when the process ends; those of processes that were killed go when the next one begins."""
    import psutil

    for old in Path(tempfile.gettempdir()).glob("outlay-process-*-*"):
        if not psutil.pid_exists(int(old.name.split("-")[2])):
            shutil.rmtree(old, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"outlay-process-{os.getpid()}-")


def _read(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of all files of a folder, by relative name."""
    found = {f.relative_to(path).as_posix(): f for f in path.rglob("*") if f.is_file()} if path.is_dir() else {path.name: path}
    return {name: file.read_bytes() for name, file in sorted(found.items())}


def _write(files: dict[str, bytes], out: Path) -> None:
    with new_folder(out) as folder:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
