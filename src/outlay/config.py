"""YAML or JSON -> a validated study. Unknown keys are errors that name the near match."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from . import registry
from .errors import ConfigError, near
from .schedule import SCHEDULES
from .types import Cost

Spec = str | dict[str, Any]
C = TypeVar("C", bound=BaseModel)


class Section(BaseModel):
    """Keys that a config may have; any other key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Prices(Section):
    """Prices in US dollars. They may change at any time: results are priced when the tables are made."""

    per_annotation: float = Field(1.0, ge=0)
    per_device_hour: float = Field(1.0, ge=0)
    per_point: float | None = Field(None, ge=0, description="what one percentage point of accuracy is worth; null: what random would pay for it in annotations")
    per_day_of_delay: float = Field(0.0, ge=0)
    days_per_round: float | None = Field(None, ge=0, description="calendar days from asking for a batch of annotations until it is there; null: unknown")

    @model_validator(mode="after")
    def _delay_needs_days(self) -> Prices:
        if self.per_day_of_delay and self.days_per_round is None:
            raise ValueError(f"per_day_of_delay = {self.per_day_of_delay:g} has no effect while days_per_round is unknown; set days_per_round, too")
        return self

    def usd(self, cost: Cost) -> float:
        """What a cost comes to in dollars: what was paid, with its annotations and its device time."""
        return cost.usd + cost.labels * self.per_annotation + cost.seconds / 3600 * self.per_device_hour


class Runtime(Section):
    """Options common to scoring, training and evaluation; see outlay.engine.runtime.Runtime."""

    template: Literal["auto", "chat", "plain"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    minibatch: int | Literal["auto"] = Field(32, description="prompts a forward pass; auto: as many as memory allows, found once and written to study.json")
    threads: int = Field(1, ge=1)

    @field_validator("minibatch", mode="plain")
    @classmethod
    def _number_or_auto(cls, value: Any) -> Any:
        if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"{value!r} is neither a number of prompts, at least 1, nor auto")
        return value


class StudyConfig(Section):
    """A study: a grid of campaigns over one pool, at fixed annotation budgets.

    The grid keys (strategies, rounds, schedules, starts, seeds, budgets) and `evaluators` may grow in an existing run;
    prices, caps, executor and workers may change; every other change makes it another study.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="names the run directory runs/NAME")
    note: str = Field("", description="one sentence that the report prints under the title")
    pool: Spec = Field(description="where the prompts come from")
    pool_per_seed: int | None = Field(None, ge=2, description="each seed draws this many prompts of the pool by hashed id; null: all")
    model: str = Field("tiny", description="tiny, smollm2, a folder or a hub id")
    scorer: Spec = "llm"
    trainer: Spec = "sft"
    judgements: Literal["responses", "preferences"] = Field("responses", description="what is bought: written responses, or which of two drafts by the round's model is better")
    proxy: str | None = Field(None, description="a smaller model that scores the pool in the model's place, trained each round on what was bought; null: the model scores")
    proxy_trainer: Spec | None = Field(None, description="null: as trainer")
    oracle: Spec = "replay"
    evaluators: dict[str, Spec] = Field(description="name -> test; the first one leads the report")
    embedding: Literal["frozen", "live"] = Field("frozen", description="embeddings for acquisition: base model, or current model")
    scored_share: float = Field(1.0, gt=0, le=1, description="share of the unlabeled prompts, drawn anew, that a trained model scores in each round; the strategy picks among these")
    runtime: Runtime = Runtime()

    strategies: list[str] = Field(min_length=1)
    rounds: list[int] = Field([1], min_length=1, description="numbers of rounds m")
    schedules: list[str | list[int]] = Field(["even"], min_length=1)
    starts: list[Literal["cold", "warm_all", "warm_new"]] = Field(["cold"], min_length=1)
    seeds: list[int] = Field([0], min_length=1, description="a list, or a number of seeds")
    budgets: list[int] = Field(min_length=1, description="annotations that may be paid for")

    reference_curve: bool = Field(True, description="train on nested prefixes of random at every number of annotations, booked as measurement")
    random_sets: int = Field(20, ge=2, description="random sets of the same size that each diversity number is compared with")
    shard: int = Field(512, ge=1, description="prompts a shard when the pool is scored: what a kill loses at most")
    keep_models: Literal["last", "all"] = "last"
    prices: Prices = Prices()
    max_usd: float | None = Field(None, gt=0, description="stop the study between stages before it has spent more, annotations and device time at `prices`; null: no cap")
    max_hours: float | None = Field(None, gt=0, description="stop it once this many device hours are spent, all workers together")
    max_flops: float | None = Field(None, gt=0, description="stop it once this many FLOPs are spent")
    report_to: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field([], description="experiment trackers that get the curves; local files always")
    executor: Spec = Field("processes", description="where stages run: serial, processes, or {use: ray, ...}")
    workers: int | None = Field(None, ge=1, description="processes that share a machine's memory; null: one per core, one on a GPU, and as many as share one where Ray gives each a fraction")

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, value: Any) -> Any:
        return list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("strategies", "rounds", "schedules", "starts", "seeds", "budgets", mode="after")
    @classmethod
    def _unique(cls, value: list) -> list:
        if len({json.dumps(v) for v in value}) < len(value):
            raise ValueError(f"{value} names the same value twice")
        return value

    @field_validator("rounds", "budgets", mode="after")
    @classmethod
    def _positive(cls, value: list[int]) -> list[int]:
        if min(value) < 1:
            raise ValueError(f"{min(value)} is below 1")
        return sorted(value)

    @field_validator("schedules", mode="after")
    @classmethod
    def _known(cls, value: list) -> list:
        for schedule in value:
            if isinstance(schedule, str) and schedule not in SCHEDULES:
                raise ValueError(f"unknown schedule '{schedule}'; {near(schedule, SCHEDULES)}, or a list of batch sizes")
        return value

    @model_validator(mode="after")
    def _trainer_needs_proxy(self) -> StudyConfig:
        if self.proxy_trainer is not None and self.proxy is None:
            raise ValueError("proxy_trainer has no effect without a proxy; set proxy, or leave it out")
        return self

    @field_validator("evaluators", mode="after")
    @classmethod
    def _plain(cls, value: dict) -> dict:
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
                raise ValueError(f"evaluator name '{name}' may only have letters, digits, '.', '_' and '-'")
        return {name: {"use": name, **spec} if isinstance(spec, dict) else spec for name, spec in value.items()}


def _expand(value: Any, source: str) -> Any:
    """${NAME} and ${NAME:-default} from the environment, in every string."""
    if isinstance(value, dict):
        return {k: _expand(v, source) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, source) for v in value]
    if not isinstance(value, str):
        return value

    def put(match: re.Match) -> str:
        found = os.environ.get(match[1], match[3])
        if found is None:
            raise ConfigError(f"{source} needs the environment variable {match[1]}, which is not set (for {value!r})")
        return found

    return re.sub(r"\$\{(\w+)(:-([^}]*))?\}", put, value)


def _override(raw: dict, assignment: str) -> None:
    """Apply `a.b=value` (the value is YAML)."""
    import yaml

    key, sign, text = assignment.partition("=")
    if not sign or not key:
        raise ConfigError(f"cannot read '{assignment}'; overrides are written key=value, e.g. seeds=5 or trainer.epochs=3")
    *parents, last = key.split(".")
    for parent in parents:
        child = raw.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"'{assignment}': '{parent}' is {child!r}, it has no keys below it")
        raw = child
    try:
        raw[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"cannot read '{assignment}': {text!r} is not valid YAML, e.g. a bracket is open") from None


def _parse(text: str, source: Path) -> Any:
    """YAML, in which a key that stands twice is an error too."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
            keys = [key.value for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise ConfigError(f"{source}, line {node.start_mark.line + 1}: the key '{key}' stands twice in one mapping; remove one")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as bad:
        raise ConfigError(f"{source} is not valid YAML: {' '.join(str(bad).split())}") from None


def _message(error: Any, where: str, kind: type[BaseModel]) -> str:
    first = error.errors()[0]
    path = ".".join(str(p) for p in first["loc"])
    if first["type"] == "extra_forbidden":
        fields = kind.model_fields if len(first["loc"]) == 1 else kind.model_fields[str(first["loc"][0])].annotation.model_fields
        return f"{where}: unknown key '{path}'; {near(str(first['loc'][-1]), fields)}"
    if first["type"] == "missing":
        return f"{where}: the key '{path}' is missing ({kind.model_fields[str(first['loc'][0])].description or 'it has no default'})"
    return f"{where}{f': {path}' if path else ''}: {first['msg'].removeprefix('Value error, ')}"


def load(path: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """The study of a YAML or JSON file, with key=value overrides. Every mistake is a ConfigError that names key and fix."""
    return validate(read(path, overrides), str(path))


def elsewhere(config: StudyConfig, executor: str | None, address: str | None) -> StudyConfig:
    """The study on this executor and Ray cluster, as far as given. Options that the config gives the same executor stay."""
    use, options = registry.parse(config.executor)
    if executor:
        asked, given = registry.parse(executor)
        use, options = asked, (options if asked == use else {}) | given
    if address:
        options["address"] = address
    return config.model_copy(update={"executor": {"use": use, **options} if options else use}) if executor or address else config


def read(path: Path, overrides: Sequence[str] = ()) -> dict:
    """A YAML or JSON file as a mapping, with key=value overrides and environment variables put in; its keys are not checked."""
    if not path.is_file():
        raise ConfigError(f"config {path} does not exist; the folder configs/ of the repository has examples")
    try:
        raw = _parse(path.read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as bad:
        raise ConfigError(f"{path}: byte {bad.start} is not UTF-8; save the file as UTF-8") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must be a mapping of keys to values")
    for assignment in overrides:
        _override(raw, assignment)
    return _expand(raw, str(path))


def validate(raw: dict, where: str = "config") -> StudyConfig:
    """A mapping -> StudyConfig, or a ConfigError in one line."""
    return validate_as(StudyConfig, raw, where)


def validate_as(kind: type[C], raw: dict, where: str = "config") -> C:
    """A mapping -> a config of this kind, or a ConfigError in one line."""
    try:
        return kind.model_validate(raw)
    except ValidationError as bad:
        raise ConfigError(_message(bad, where, kind)) from None
