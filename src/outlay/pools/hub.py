"""A pool from a Hugging Face data set: an id on the Hub, or a local folder of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError, DataError, near
from ..registry import register
from ..seeds import lottery
from .files import as_text, first_exchange, text_id

if TYPE_CHECKING:
    import pyarrow as pa

TEST_SHARE = 0.2  # of all prompts
ROWS = 1000  # read at once


@register("pool", "hub")
@dataclass(frozen=True, kw_only=True)
class HubPool:
    """Prompts of a Hugging Face data set: `name` is an id such as allenai/tulu-3-sft-mixture, or a folder with Parquet, JSON,
    JSONL or CSV files, or one that `save_to_disk` wrote.

    Columns: `messages` (a list of turns; the first question and its answer are taken), or `prompt` and `response` (None: people
    will answer); `group` and `id` may be None. A prompt that occurs twice is kept once, with its first answer. `side`: a hash of
    the prompt puts a fifth of them on the test side, for data sets with one split. `size` prompts are taken by hashed id (None:
    all). `max_chars` leaves out longer prompts, `skip_malformed` rows without a prompt or (where one is asked for) an answer.
    """

    name: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    messages: str | None = None
    prompt: str = "prompt"
    response: str | None = "response"
    group: str | None = None
    id: str | None = None
    side: Literal["all", "pool", "test"] = "all"
    size: int | None = None
    max_chars: int | None = None
    skip_malformed: bool = False

    def __call__(self) -> pa.Table:
        """-> table id, text, group, response, in the order of the hashed ids."""
        import pyarrow as pa

        rows: dict[str, tuple[str, str, str]] = {}
        malformed: list[str] = []
        for number, row in enumerate(self._rows(), 1):
            try:
                text, answer = self._pair(row)
                facts = [as_text(row[name], name) if name else "" for name in (self.id, self.group)]
            except ValueError as bad:
                malformed.append(f"row {number}: {bad}")
                continue
            if self.max_chars is None or len(text) <= self.max_chars:
                rows.setdefault(text, (facts[0] or text_id(text), facts[1], answer))
        if malformed and not self.skip_malformed:
            raise DataError(f"hub: {self.name}, {len(malformed)} rows cannot be used, the first is {malformed[0]}; mend the data, or leave them out with skip_malformed=True")
        if self.side != "all":
            place = lottery(0, list(rows), "hub", "side")
            rows = {text: row for (text, row), at in zip(rows.items(), place, strict=True) if (at < TEST_SHARE) == (self.side == "test")}
        if self.size is not None and not 1 <= self.size <= len(rows):
            raise ConfigError(f"hub: size {self.size} where {self.name} has {len(rows)} usable prompts (split {self.split}, side {self.side}, max_chars {self.max_chars})")
        draw = dict(zip(rows, lottery(0, [row[0] for row in rows.values()], "hub", "draw"), strict=True))
        texts = sorted(rows, key=lambda text: (draw[text], text))[: self.size]
        columns = {"id": [rows[t][0] for t in texts], "text": texts, "group": [rows[t][1] for t in texts], "response": [rows[t][2] for t in texts]}
        return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})

    def _pair(self, row: dict[str, Any]) -> tuple[str, str]:
        """Prompt and answer of a row. ValueError if there is none."""
        if self.messages:
            text, answer = first_exchange(row[self.messages])
        else:
            text, answer = as_text(row[self.prompt], self.prompt), as_text(row[self.response], self.response) if self.response else ""
        if not text.strip() or ((self.messages or self.response) and not answer.strip()):
            raise ValueError(f"the {'answer' if text.strip() else 'prompt'} is empty")
        return text.strip(), answer.strip()

    def _rows(self) -> Any:
        """The wanted columns of every row, as dictionaries."""
        data = self.load()
        wanted = [self.messages] if self.messages else [name for name in (self.prompt, self.response) if name]
        wanted += [name for name in (self.group, self.id) if name]
        for name in wanted:
            if name not in data.column_names:
                hint = "; set messages='messages'" if "messages" in data.column_names and not self.messages else f"; {near(name, data.column_names)}"
                raise ConfigError(f"hub: {self.name} has no column '{name}' (found: {', '.join(data.column_names)}){hint}")
        for part in data.select_columns(list(dict.fromkeys(wanted))).with_format("arrow").iter(batch_size=ROWS):
            yield from part.to_pylist()

    def load(self) -> Any:
        """The `datasets.Dataset`, all columns. ConfigError or DataError says what to do."""
        try:
            import datasets
        except ImportError:
            raise ConfigError("the pool 'hub' needs the package datasets: pip install outlay[hub]") from None
        folder = Path(self.name).expanduser()
        if not folder.is_dir() and (self.name.startswith((".", "/", "~")) or self.name.count("/") > 1):
            raise DataError(f"hub: the folder {self.name} does not exist; check the path in the config")
        try:
            if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
                data = datasets.load_from_disk(str(folder))
                if isinstance(data, datasets.DatasetDict) and self.split not in data:
                    raise ConfigError(f"hub: {self.name} has no split '{self.split}'; {near(self.split, data)}")
                return data[self.split] if isinstance(data, datasets.DatasetDict) else data
            return datasets.load_dataset(str(folder) if folder.is_dir() else self.name, self.config, split=self.split, revision=self.revision)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as bad:
            raise self._explained(bad, folder.is_dir()) from None

    def _explained(self, bad: Exception, local: bool) -> ConfigError | DataError:
        """The library's error in one line, with what to do about it."""
        said = " ".join(str(bad).split())[:300]
        if not local and "gated" in said:
            return DataError(f"hub: {self.name} is gated; accept its licence on https://huggingface.co/datasets/{self.name}, then log in with: hf auth login")
        if isinstance(bad, ConnectionError):
            return DataError(
                f"hub: {self.name} cannot be reached ({said}); without a network use a local copy, made elsewhere with: hf download "
                f"{self.name} --repo-type dataset --local-dir FOLDER (then name=FOLDER), or the pools file, flan_cot, reasoning_gym or skills"
            )
        if not local and isinstance(bad, FileNotFoundError):
            return DataError(f"hub: there is no data set '{self.name}' on the Hub that you may read, and no folder of that name; check it, or log in with: hf auth login")
        return DataError(f"hub: {self.name} (config {self.config}, split {self.split}) cannot be loaded: {said}")
