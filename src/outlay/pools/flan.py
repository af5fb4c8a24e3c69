"""FLAN V2 chain-of-thought data: a folder of TSV files (prompt, answer, rationale) as google-research/FLAN publishes them."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import ConfigError, DataError
from ..registry import register
from ..seeds import lottery
from .files import text_id

if TYPE_CHECKING:
    import pyarrow as pa


def read_tsv(path: Path) -> list[tuple[str, str, str]]:
    r"""Rows of one file. Its traps: quotes are plain characters, a line break is written as backslash-n, and U+2028 is no line end.

    So it is split on "\n" and tab by hand, and only backslash-n is unescaped (other backslashes are LaTeX).
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="\n") as file:
        lines = file.read().split("\n")
    if lines[-1] == "":
        lines.pop()
    rows = []
    for number, line in enumerate(lines, 1):
        fields = line.split("\t")
        if len(fields) != 3:
            raise DataError(f"{path}, line {number}: {len(fields)} tab-separated fields where 3 are expected (prompt, answer, rationale)")
        prompt, answer, rationale = (field.replace("\\n", "\n") for field in fields)
        rows.append((prompt, answer, rationale))
    return rows


@register("pool", "flan_cot")
@dataclass(frozen=True, kw_only=True)
class FlanCot:
    """FLAN V2 CoT questions from a folder of `<task>_train.tsv[.gz]`, the file's name as the group.

    `split`: a fifth of the prompts (by hashed text, so both sides never share one) is the test side; pool and test take
    `size` prompts of their side at random (None: all), balanced over files if `balanced`. `max_chars` leaves out longer prompts.
    """

    folder: Path
    response: Literal["answer", "rationale"] = "answer"
    split: Literal["pool", "test"] = "pool"
    size: int | None = None
    balanced: bool = False
    max_chars: int = 600
    tasks: tuple[str, ...] = ()

    def __call__(self) -> pa.Table:
        """-> table id, text, group, response; a text that occurs twice is kept once."""
        import pyarrow as pa

        files = {p.name.split("_train")[0]: p for p in sorted(self.folder.glob("*_train.tsv*"))}
        if not files:
            raise DataError(f"no *_train.tsv or *_train.tsv.gz in {self.folder}; get flan/v2/cot_data of google-research/FLAN, or set OUTLAY_DATA to the folder that holds flan_v2_cot")
        missing = set(self.tasks) - set(files)
        if missing:
            raise ConfigError(f"FLAN CoT task {sorted(missing)} is not in {self.folder} (found: {', '.join(files)})")
        rows: dict[str, tuple[str, str, str]] = {}
        for task in self.tasks or files:
            for prompt, answer, rationale in read_tsv(files[task]):
                if len(prompt) <= self.max_chars:
                    rows.setdefault(prompt.strip(), (task, answer, rationale))
        texts = list(rows)
        side = lottery(0, texts, "flan_cot", "side")
        texts = [t for t, s in zip(texts, side, strict=True) if (s < 0.2) == (self.split == "test")]
        draw = dict(zip(texts, lottery(0, texts, "flan_cot", "draw"), strict=True))
        texts.sort(key=draw.__getitem__)
        if self.balanced:  # the i-th prompt of every file before the (i + 1)-th of any
            turn: dict[str, int] = {}
            place = {}
            for t in texts:
                turn[rows[t][0]] = place[t] = turn.get(rows[t][0], 0) + 1
            texts.sort(key=lambda t: (place[t], draw[t]))
        if self.size is not None and self.size > len(texts):
            raise ConfigError(f"flan_cot: size {self.size} is more than the {len(texts)} prompts of the {self.split} side (max_chars {self.max_chars})")
        texts = texts[: self.size]
        column = 1 if self.response == "answer" else 2
        return pa.table({"id": [text_id(t) for t in texts], "text": texts, "group": [rows[t][0] for t in texts], "response": [rows[t][column].strip() for t in texts]})
