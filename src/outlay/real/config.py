"""YAML or JSON -> a validated campaign with annotators, and the parts of its budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from .. import registry, schedule
from ..acquisition import require_divisible
from ..campaign import Campaign
from ..config import Prices, Runtime, Section, Spec, StudyConfig, read, validate_as
from ..errors import ConfigError

SPARE = 4  # one spare prompt for so many of the dev set, for those that are skipped


class Annotators(Section):
    """Who answers, how many of them each prompt, and how fast."""

    people: int = Field(1, ge=1)
    per_item: int = Field(1, ge=1, description="annotators who judge each prompt; each of their judgements is paid")
    settle: Literal["majority", "first", "central"] = "majority"
    per_day: float | None = Field(None, gt=0, description="judgements that one person gives in a day; null: unknown")

    @model_validator(mode="after")
    def _enough_people(self) -> Annotators:
        if self.per_item > self.people:
            raise ValueError(f"per_item = {self.per_item} judgements of each prompt need as many people, and people = {self.people}")
        return self


class Replay(Section):
    """What is tried on the labelled sample."""

    strategies: list[str] = Field(["random", "mean_entropy", "facility_location"], min_length=1)
    rounds: list[int] = Field([1, 4], min_length=1)
    seeds: int = Field(5, ge=2)
    test_share: float = Field(0.3, gt=0, lt=1, description="share of the sample that is kept aside as the replay's test")


class Sum(Section):
    """A budget in the place of a number of judgements: what people's time or pay may come to, with that for the dev set."""

    minutes: float | None = Field(None, gt=0)
    usd: float | None = Field(None, gt=0)
    reserve: float = Field(0.0, ge=0, lt=1, description="share of it that is kept back, for a last batch that costs more than predicted")

    @model_validator(mode="after")
    def _one(self) -> Sum:
        if (self.minutes is None) == (self.usd is None):
            raise ValueError("give minutes or usd, one of the two, or a number of judgements")
        return self

    @property
    def unit(self) -> Literal["minutes", "usd"]:
        return "usd" if self.minutes is None else "minutes"

    @property
    def amount(self) -> float:
        return self.usd if self.minutes is None else self.minutes


class Effort(Section):
    """What a judgement is assumed to take until some are there to learn from. It then counts as five of them."""

    seconds: float | None = Field(None, gt=0, description="of each; null: 8 hours / annotators.per_day where that is given, else 60")
    per_100_characters: float = Field(0.0, ge=0, description="seconds more for 100 characters of the prompt")
    per_100_tokens: float = Field(0.0, ge=0, description="seconds more for 100 tokens of the base model's response, where the strategy makes it write one")
    per_hour: float | None = Field(None, gt=0, description="dollars that an hour of an annotator costs; null: each judgement costs prices.per_annotation")


class CampaignConfig(Section):
    """A campaign with annotators: one strategy, one number of rounds, one budget of paid judgements.

    Prices, note, replay, sample and shadow_each_round may change while it runs; every other change is refused.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="names the run directory runs/NAME")
    note: str = ""
    pool: Spec = Field(description="the prompts that may be asked")
    model: str = Field("tiny", description="tiny, smollm2, a folder or a hub id")
    scorer: Spec = "llm"
    trainer: Spec = "sft"
    judgements: Literal["responses", "preferences"] = Field("responses", description="what is bought: written responses, or which of two drafts by the round's model is better")
    grader: Spec = Field("heldout", description="the evaluator that says whether a response is right: for the dev set, the audit and the test")
    runtime: Runtime = Runtime()

    strategy: str = Field(description="which prompts to ask: outlay list strategies")
    rounds: int = Field(ge=1)
    schedule: str | tuple[int, ...] = "even"
    start: Literal["cold", "warm_all", "warm_new"] = "cold"
    seed: int = 0
    budget: int | Sum = Field(description="judgements that may be paid for, with those of the dev set and of the random slices; or {minutes: 600}, or {usd: 450}")
    per_cost: bool = Field(False, description="rank by the strategy's score divided by what a prompt is predicted to cost, in minutes or dollars as the budget is")
    embedding: Literal["frozen", "live"] = "frozen"
    scored_share: float = Field(1.0, gt=0, le=1)
    shard: int = Field(512, ge=1)

    dev_share: float = Field(0.1, ge=0, lt=1, description="share of the budget for a random dev set, which is never trained on; 0: none")
    dev_set: Spec | None = Field(None, description="a labelled dev set of your own, in the place of a bought one")
    audit_share: float = Field(0.1, ge=0, lt=1, description="share of each batch that is drawn at random; 0: none")
    shadow: float = Field(0.0, ge=0, lt=1, description="share of each batch that is random, too, as a shadow arm: what random prompts alone would have taught")
    shadow_each_round: bool = Field(False, description="compare with the shadow arm after each round, not only in finish")
    test_set: Spec | None = Field(None, description="labelled items that are looked at once, by finish")
    drafts: bool = Field(False, description="show annotators the model's response to edit, but in the dev set and the random slices")

    oracle: Spec = "human"
    annotators: Annotators = Annotators()
    prices: Prices = Prices()
    effort: Effort = Effort()
    sample: Spec | None = Field(None, description="labelled prompts like the pool's, on which `plan` replays")
    replay: Replay = Replay()

    @field_validator("budget", mode="before")
    @classmethod
    def _number_or_sum(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return validate_as(Sum, value, "budget")
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{value!r} is neither a number of judgements, at least 1, nor {{minutes: ...}} or {{usd: ...}}")
        return value

    @model_validator(mode="after")
    def _fits(self) -> CampaignConfig:
        if self.dev_set is not None and self.dev_share:
            raise ValueError(f"dev_set is given, so no dev set is bought: set dev_share to 0 (it is {self.dev_share:g})")
        if self.judgements == "preferences" and (self.dev_share or self.audit_share):
            key = "dev_share" if self.dev_share else "audit_share"
            raise ValueError(f"a preference does not say what is right, so it can be no item of a dev set or of a random slice: set {key} to 0 (it is {getattr(self, key):g}); a labelled dev set of your own may be named as dev_set")
        if self.judgements == "preferences" and self.drafts:
            raise ValueError("drafts: true shows one draft to edit, and preferences are asked with two to compare anyway: set drafts to false")
        if self.drafts and registry.parse(self.scorer)[0] != "llm":
            raise ValueError("drafts are responses of a language model: they need the scorer llm")
        self._shadowed()
        if isinstance(self.budget, Sum):
            self._payable(self.budget)
            return self
        if self.per_cost:
            raise ValueError(f"per_cost divides by minutes or dollars, and the budget is {self.budget} judgements; give budget: {{minutes: ...}} or {{usd: ...}}, or set per_cost to false")
        if self.buys < self.rounds:
            raise ValueError(f"the budget of {self.budget} judgements leaves {self.buys} prompts for {self.rounds} rounds, with {self.annotators.per_item} a prompt and {self.dev_items} for the dev set; raise it or ask for fewer rounds")
        if self.slice_share and min(self.sizes) < 2:
            key = "shadow" if self.shadow else "audit_share"
            raise ValueError(f"a batch of one prompt has no room for a random slice (batches: {list(self.sizes)}); ask for fewer rounds or set {key} to 0")
        return self

    def _shadowed(self) -> None:
        """Whether there is something for the shadow arm to compare, and something to compare on."""
        if not self.shadow:
            if self.shadow_each_round:
                raise ValueError("shadow_each_round: true, but there is no shadow arm; set shadow to the share of each batch that goes to it, such as 0.2")
            return
        if self.judgements == "preferences":
            raise ValueError(f"the shadow arm trains on responses, and preferences are between drafts of the round's own model: set shadow to 0 (it is {self.shadow:g})")
        if registry.parse(self.strategy)[0] == "random":
            raise ValueError(f"the shadow arm compares the strategy with random, and the strategy is random: set shadow to 0 (it is {self.shadow:g})")
        if isinstance(self.budget, Sum):
            raise ValueError(f"the shadow arm needs a number of prompts that is known before, and the budget is in {self.budget.unit}; give a number of judgements")
        if not self.dev_share and self.dev_set is None:
            raise ValueError("the shadow arm is compared on a dev set: set dev_share above 0, or name a labelled dev_set")
        if self.slice_share > 0.5:
            raise ValueError(f"audit_share and shadow leave {1 - self.slice_share:.0%} of each batch to the strategy; the comparison is at equal numbers of labels, so leave it at least half (they are {self.audit_share:g} and {self.shadow:g})")

    def _payable(self, total: Sum) -> None:
        if not isinstance(self.schedule, str):
            raise ValueError(f"the schedule {list(self.schedule)} counts prompts, and the budget is in {total.unit}; name a schedule (even, geometric, front_loaded)")
        if registry.parse(self.oracle)[0] == "mixed":
            raise ValueError(f"the oracle mixed counts its probes in judgements, and the budget is in {total.unit}; give a number of judgements")
        if self.judgements == "preferences":
            raise ValueError(f"preferences are bought by their number, and the budget is in {total.unit}; give a number of judgements")
        if total.unit == "usd" and self.effort.per_hour is None and not self.prices.per_annotation:
            raise ValueError("a budget in usd needs a price: prices.per_annotation above 0, or effort.per_hour")
        if self.per_cost:
            require_divisible(registry.card("strategy", registry.parse(self.strategy)[0]))

    def counted(self, judgements: int) -> CampaignConfig:
        """The same with a number of judgements as its budget: what an amount is assumed to pay. ConfigError if that is too little."""
        return validate_as(CampaignConfig, {**self.model_dump(mode="json"), "budget": judgements, "per_cost": False}, f"{judgements} judgements are what the budget is assumed to pay")

    @property
    def how(self) -> str:
        """The strategy, and what its score is divided by: "mean_entropy", "mean_entropy per minute"."""
        return f"{self.strategy} per {'minute' if self.budget.unit == 'minutes' else 'dollar'}" if self.per_cost else self.strategy

    @property
    def slice_share(self) -> float:
        """Share of each batch that is random: for the audit and for the shadow arm."""
        return self.audit_share + self.shadow

    @property
    def items(self) -> int:
        """Prompts that the budget pays for."""
        return self.budget // self.annotators.per_item

    @property
    def dev_items(self) -> int:
        """Prompts of the bought dev set."""
        return max(1, round(self.dev_share * self.items)) if self.dev_share else 0

    @property
    def reserve(self) -> int:
        """Prompts that are set aside for it, spares included."""
        return self.dev_items + math.ceil(self.dev_items / SPARE)

    @property
    def probes(self) -> int:
        """Prompts that a machine and people are both paid for."""
        return self.items - self.dev_items - self.buys

    @property
    def buys(self) -> int:
        """Prompts that the rounds may buy."""
        left = self.items - self.dev_items
        use, options = registry.parse(self.oracle)
        if use != "mixed":
            return left
        given = {**registry.card("oracle", use).options, **options}
        rate = given["share"] * given["probe"]
        return max((n for n in range(left + 1) if n + int(rate * n) <= left), default=0)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Prompts of each round."""
        return schedule.batches(self.schedule, self.buys, self.rounds)

    @property
    def campaign(self) -> Campaign:
        return Campaign(self.strategy, self.rounds, self.buys, self.seed, self.schedule, self.start)

    def study(self, prompts: int) -> StudyConfig:
        """The same as a study of one campaign, over a pool of so many prompts: the workbench reads its parts from there."""
        values = self.model_dump(mode="json", include={"name", "note", "pool", "model", "scorer", "trainer", "judgements", "runtime", "embedding", "scored_share", "shard", "prices"})
        plan = list(self.schedule) if isinstance(self.schedule, tuple) else self.schedule
        values |= {"strategies": [self.strategy], "rounds": [self.rounds], "schedules": [plan], "starts": [self.start], "seeds": [self.seed], "budgets": [self.buys]}
        values |= {"pool_per_seed": prompts - self.reserve, "reference_curve": False, "executor": "serial", "oracle": self.oracle_spec()}
        use, options = registry.parse(self.grader)
        values["evaluators"] = {"dev": {"use": use, **options, "source": self.dev_set}} if self.dev_set is not None else {}
        return validate_as(StudyConfig, values)

    def oracle_spec(self) -> Spec:
        """The oracle with the annotators' number and rule and the number of probes, where it takes them."""
        use, options = registry.parse(self.oracle)
        takes = registry.card("oracle", use).options
        if self.annotators.per_item > 1 and "per_item" not in takes:
            raise ConfigError(f"oracle '{use}' gives one answer a prompt; set annotators.per_item to 1 (it is {self.annotators.per_item})")
        given = {"per_item": self.annotators.per_item, "settle": self.annotators.settle, "quota": self.probes}
        return {"use": use, **{key: value for key, value in given.items() if key in takes}, **options}


def load(path: Path, overrides: Sequence[str] = ()) -> CampaignConfig:
    """The campaign of a YAML or JSON file, with key=value overrides. Every mistake is a ConfigError that names key and fix."""
    return validate_as(CampaignConfig, read(path, overrides), str(path))
