"""The config of an evaluation: the keys of the old eval.py, and the new ones. Unknown keys are errors that name the near match."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .. import config as configs
from ..errors import ConfigError, near

Mode = Literal["bbh", "flan", "mmlu"]
REPOSITORY = Path(__file__).parents[3]  # where configs/ lies when Outlay runs from a checkout


class EvalConfig(BaseModel):
    """What is evaluated and how. The first seven keys are those of the old eval.py."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model_name: str = Field(description="tiny, smollm2, a folder or a hub id")
    bbh_dir: Path | None = Field(None, description="a checkout of BIG-Bench-Hard, or its cot-prompts folder; null: $OUTLAY_DATA/bbh, else the hub")
    flan_file: Path | None = Field(None, description="a .tsv[.gz] of FLAN's cot_data, or a folder of them; null: $OUTLAY_DATA/flan_v2_cot")
    output_dir: Path = Path("results")
    BBH_MAX_TOKEN_LENGTH: int = Field(512, ge=1, description="most new tokens of a BBH response; the prompt does not count")
    FLAN_MAX_NEW_TOKENS: int = Field(256, ge=1, description="most new tokens of a FLAN response")
    MAX_EXAMPLES: int | None = Field(None, ge=1, description="items of each task, drawn by hash; null: all")

    mmlu_dir: Path | None = Field(None, description="a folder with dev/ and test/; null: $OUTLAY_DATA/mmlu, else the hub")
    tasks: tuple[str, ...] = Field((), description="some of the mode's tasks; empty: all")
    cot: bool = Field(True, description="BBH, FLAN: ask for reasoning; false: answer-only prompts")
    shots: int | None = Field(None, ge=0, description="worked examples in the prompt; null: 3 for BBH and FLAN, 5 for MMLU")
    chat: bool = Field(False, description="put the prompt into the tokenizer's chat template")
    format: Literal["auto", "letter", "cloze"] = Field("auto", description="MMLU: see docs/evaluation.md; auto goes by the size of the model")
    smoke: Literal["never", "fallback", "only"] = Field("never", description="BBH: the 81 worked examples in the lm-eval wheel, where no BBH data is at hand, or in any case")
    batch_size: int = Field(16, ge=1, description="prompts in a minibatch: memory and speed, not answers")
    seed: int = Field(0, description="of the draw of items")
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    threads: int | None = Field(None, ge=1, description="CPU threads; null: all cores")

    @property
    def suffix(self) -> str:
        """The model's name as file names end with it."""
        return self.model_name.strip("/").replace("/", "_")

    @property
    def cores(self) -> int:
        return self.threads or os.cpu_count() or 1


def load(path: Path, overrides: Sequence[str] = ()) -> EvalConfig:
    """The config of a JSON or YAML file, with key=value overrides. A bare name is also looked for in configs/, here and in the
    repository. Every mistake is a ConfigError that names key and fix."""
    raw = configs.read(_found(path), overrides)
    try:
        return EvalConfig.model_validate(raw)
    except ValidationError as bad:
        first = bad.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{path}: unknown key '{key}'; {near(key, EvalConfig.model_fields)}") from None
        if first["type"] == "missing":
            raise ConfigError(f"{path}: the key '{key}' is missing ({EvalConfig.model_fields[key].description})") from None
        raise ConfigError(f"{path}: {key} = {first['input']!r}: {first['msg'].lower()}") from None


def _found(path: Path) -> Path:
    places = [path] if path.is_absolute() or len(path.parts) > 1 else [path, Path("configs") / path, REPOSITORY / "configs" / path]
    for place in places:
        if place.is_file():
            return place
    known = sorted({p.name for folder in (Path("configs"), REPOSITORY / "configs") for p in folder.glob("config_*.json")})
    raise ConfigError(f"config {path} does not exist; {near(path.name, known) if known else 'give the path of a JSON or YAML file'}")
