"""The nouns of Outlay: frozen records that stages hand to each other, and one-method protocols that make them.

Shapes: n prompts in the pool, m of them unlabeled, k bought in a round, d embedding dimensions.
Pure code uses row numbers of the pool; everything written to disk uses prompt ids; `Pool` converts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Floats = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]
PROMPT_SIGNALS = frozenset({"embedding", "words"})  # of the prompt itself, whatever is answered: known of labeled prompts too
POOL_SIGNALS = frozenset({"words"})  # known from the texts alone: no scorer gives them, they cost nothing and never change
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stage consumed. Money is in US dollars, time in device seconds, FLOPs by formula (measure/flops.py).

    `usd` here is what was paid to annotators or an API; device time is priced in results.py, so that prices can change.
    """

    labels: int = 0
    usd: float = 0.0
    seconds: float = 0.0
    flops: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    trained_tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of the pool. It never carries the answer."""

    id: str
    text: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Pool:
    """The fixed, ordered set of prompts we may buy from. Arrow-backed: `Prompt`s are made on access, so a million rows fit.

    `table` has the string columns id, text, group. Use `outlay.pools` to make one from files.
    """

    name: str
    table: pa.Table = field(repr=False, compare=False)
    _memo: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return self.table.num_rows

    def at(self, rows: Iterable[int]) -> list[Prompt]:
        """The prompts at these row numbers, in this order."""
        part = self.table.take(np.asarray(list(rows), dtype=np.int64))
        return [Prompt(*row) for row in zip(*(part.column(c).to_pylist() for c in ("id", "text", "group")), strict=True)]

    def take(self, rows: npt.ArrayLike) -> Pool:
        """The sub-pool of these rows, in this order."""
        return Pool(self.name, self.table.take(np.asarray(rows, dtype=np.int64)))

    def rows_of(self, ids: Iterable[str]) -> Indices:
        """Row numbers of these ids. Raises DataError for an id that is not in the pool."""
        if "rows" not in self._memo:
            self._memo["rows"] = {name: row for row, name in enumerate(self.ids)}
        index = self._memo["rows"]
        try:
            return np.array([index[name] for name in ids], dtype=np.int64)
        except KeyError as missing:
            raise DataError(f"prompt id {missing} is not in pool '{self.name}' ({len(self)} prompts)") from None

    @property
    def ids(self) -> list[str]:
        return self.table.column("id").to_pylist()

    @property
    def texts(self) -> list[str]:
        return self.table.column("text").to_pylist()

    @property
    def groups(self) -> npt.NDArray[np.str_]:
        """(n,) group label of each prompt; all empty where the pool has none."""
        return np.array(self.table.column("group").to_pylist(), dtype=np.str_)

    @property
    def fingerprint(self) -> str:
        """Hash of ids, texts and groups in order."""
        if "fingerprint" not in self._memo:
            digest = hashlib.sha256()
            for column in ("id", "text", "group"):
                for value in self.table.column(column).to_pylist():
                    raw = value.encode()
                    digest.update(len(raw).to_bytes(8, "big") + raw)
            self._memo["fingerprint"] = digest.hexdigest()[:16]
        return self._memo["fingerprint"]


@dataclass(frozen=True, slots=True)
class Signals:
    """What a model says of each prompt: named columns, (n,) or (n, d). `live` names the columns that come from the current
    model; the others are from a fixed model, or from the texts alone, and never change. NaN means "not measured for this row"."""

    columns: Mapping[str, np.ndarray]
    live: frozenset[str] = frozenset()
    cost: Cost = Cost()


@dataclass(frozen=True, slots=True)
class View:
    """All that a strategy may see. There is no way from here to a model, a text or a gold answer.

    `lottery`: (n,) a uniform number per row, fixed by the campaign's seed and the prompt's id. Use it to break ties and to
    order rows before drawing from the generator: then a choice does not depend on the order of the pool.
    `base`: the base model's embedding where the strategy declared it and it is live, (n, d). `memory` is handed from round to round
    of a campaign; it is empty again after an interruption, so what is kept there saves time and must not change a choice.
    `costs`: (n,) what each prompt is predicted to cost, where the choice is to be by score per cost; strategies do not see it.
    """

    signals: Signals
    unlabeled: Indices
    labeled: Indices
    groups: npt.NDArray[np.str_]
    lottery: Floats
    base: Mapping[str, Floats] = field(default_factory=dict)
    memory: dict[Any, Any] = field(default_factory=dict)
    costs: Floats | None = None

    def score(self, name: str) -> Floats:
        """The signal of the unlabeled rows, aligned with `unlabeled`. (m,) or (m, d)."""
        return self.signals.columns[name][self.unlabeled]

    def within(self, rows: Indices) -> View:
        """As if the pool had these rows alone: sorted, with all unlabeled and labeled ones among them. Row numbers count within them."""
        columns = {name: np.asarray(values[rows]) for name, values in self.signals.columns.items()}
        return replace(
            self,
            signals=replace(self.signals, columns=columns),
            unlabeled=np.searchsorted(rows, self.unlabeled),
            labeled=np.searchsorted(rows, self.labeled),
            groups=self.groups[rows],
            lottery=self.lottery[rows],
            base={name: values[rows] for name, values in self.base.items()},
            memory={},
            costs=None if self.costs is None else self.costs[rows],
        )


@dataclass(frozen=True, slots=True)
class Selection:
    """What a strategy chose, most wanted first, with its evidence. `scores` is what the strategy maximised (None where it has
    no number). The rest is measured in the base model's embedding, which the strategy may not have seen: `nearest[i]` is the
    most similar prompt bought before pick i (None for the very first) and its cosine similarity; `represents[i]` counts the
    pool prompts, itself included, whose most similar bought one is pick i, and `examples[i]` names up to three others. Coverage
    strategies say how good the choice is: `objective`, and `bound`, which no choice of as many exceeds (k_center: undercuts; facility
    location over more than 20,000 prompts: an estimate). The last
    `audit` ids are a random slice that the strategy had no part in: they have no score."""

    strategy: str
    ids: tuple[str, ...]
    scores: tuple[float | None, ...] | None = None
    represents: tuple[int, ...] | None = None
    nearest: tuple[tuple[str, float] | None, ...] | None = None
    examples: tuple[tuple[str, ...], ...] | None = None
    objective: float | None = None
    bound: float | None = None
    audit: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What an annotator is asked: the prompt, and model responses to edit or to compare (may be empty). `why`: score (None where there
    is none), rank (from 1) and represents of the choice in that round. `kind`: to write a response, or to prefer one of two drafts."""

    prompt: Prompt
    drafts: tuple[str, ...] = ()
    round: int = 0
    why: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["response", "preference"] = "response"


@dataclass(frozen=True, slots=True)
class Annotation:
    """A judgement bought for a prompt."""

    prompt_id: str
    kind: Literal["response", "preference", "skip"] = "response"
    response: str = ""
    chosen: str = ""
    rejected: str = ""
    annotator: str = ""
    round: int = 0
    seconds: float = 0.0
    usd: float = 0.0

    @property
    def text(self) -> str:
        """What was written, or chosen."""
        return self.chosen if self.kind == "preference" else self.response


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two drafts of each prompt that can be asked which is better, by prompt id; `unfit` prompts have no two (see outlay.pairing)."""

    drafts: Mapping[str, tuple[str, str]]
    unfit: tuple[str, ...] = ()
    cost: Cost = Cost()


@dataclass(frozen=True, slots=True)
class Batch:
    """The annotations that one round bought."""

    annotations: tuple[Annotation, ...]
    cost: Cost = Cost()


@dataclass(frozen=True, slots=True)
class Model:
    """The address of a model, never the object: a base (name, folder or hub id) and, if trained, the weights folder
    (relative to the run directory when stored). `updates` counts the optimizer updates behind these weights (a warm
    start's included); `digest` hashes the weights files."""

    base: str
    weights: str | None = None
    kind: Literal["base", "lora", "full"] = "base"
    updates: int = 0
    digest: str = ""
    cost: Cost = Cost()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Per-item results on one benchmark. `items` fingerprints the item list; columns are (n_items,): at least `correct`."""

    benchmark: str
    items: str
    columns: Mapping[str, np.ndarray]
    cost: Cost = Cost()


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of score -> select -> annotate -> train -> evaluate. Number 0 is the untouched base. `cost` leaves out what is
    measurement (evaluation on test items, diversity)."""

    number: int
    labels_spent: int
    model: Model
    evaluations: tuple[Evaluation, ...] = ()
    cost: Cost = Cost()


class Strategy(Protocol):
    def __call__(self, view: View, k: int, rng: np.random.Generator) -> Indices:
        """k distinct rows out of view.unlabeled, most wanted first."""


class Scorer(Protocol):
    def __call__(self, model: Model, pool: Pool, needs: frozenset[str], *, seed: int) -> Signals:
        """The signals `needs` for every prompt of the pool."""


class Oracle(Protocol):
    def __call__(self, requests: Sequence[Request]) -> Batch:
        """Answers, or AwaitingAnnotations."""


class Trainer(Protocol):
    def __call__(self, start: Model, prompts: Sequence[Prompt], annotations: Sequence[Annotation], out: Path, *, seed: int) -> Model:
        """Fine-tune `start` on aligned prompts and annotations and write the weights into the folder `out`."""


class Evaluator(Protocol):
    def __call__(self, model: Model, *, seed: int) -> Evaluation:
        """Score the model on a fixed list of items."""


class Executor(Protocol):
    def map(self, fn: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Results in the order of the items."""
