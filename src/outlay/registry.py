"""Names -> parts. A part is a strategy (a function) or a frozen dataclass with `__call__`, registered under a kind and a name.

A spec says which part with which options: "random", "facility_location(kernel='rbf')" or {"use": "llm", "minibatch": 32}.
Other people's packages add parts through the entry points outlay.strategies, .pools, .scorers, .trainers, .oracles, .evaluators.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from .errors import ConfigError, near
from .types import PROMPT_SIGNALS

# Where the parts of each kind live: imported when a name of that kind is first looked up, so `import outlay` stays light.
HOMES = {
    "strategy": ("outlay.acquisition",),
    "pool": ("outlay.pools", "outlay.toy"),
    "scorer": ("outlay.engine", "outlay.toy"),
    "trainer": ("outlay.engine", "outlay.toy", "outlay.toy_dpo"),
    "oracle": ("outlay.oracles",),
    "evaluator": ("outlay.evaluators", "outlay.toy"),
    "executor": ("outlay.executors",),
}
PLURAL = {"strategy": "strategies"}


@dataclass(frozen=True)
class Card:
    """A registered part and what the rest of the program may know of it.

    For strategies: `needs` (signals it reads), `of_labeled` (those that it reads of labeled prompts too), `nested` (its first j picks do not depend on k), `reads_groups`, `source`
    (paper), `score` (a signal's name, "-name" where the lowest is wanted, or a function (view, picks, and those options of the
    strategy that it names) -> (k,): what the strategy maximised, for the record), `divisible` (it takes the highest scores, and a prompt's score is
    a worth of its own, at least 0 and proportional to the signals: so it may be divided by what the prompt costs).
    """

    kind: str
    name: str
    part: Callable
    needs: frozenset[str] = frozenset()
    of_labeled: frozenset[str] = frozenset()
    nested: bool = False
    reads_groups: bool = False
    source: str = ""
    score: str | Callable | None = None
    divisible: bool = False

    @property
    def summary(self) -> str:
        """First sentence of the docstring."""
        return (inspect.getdoc(self.part) or "").split("\n\n")[0].replace("\n", " ")

    @property
    def options(self) -> dict[str, Any]:
        """Option name -> default (dataclasses.MISSING where one must be given)."""
        if dataclasses.is_dataclass(self.part):
            return {
                f.name: f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
                for f in dataclasses.fields(self.part)
                if f.init
            }
        return {p.name: p.default for p in inspect.signature(self.part).parameters.values() if p.kind is p.KEYWORD_ONLY}


@dataclass
class _Registry:
    cards: dict[tuple[str, str], Card] = field(default_factory=dict)
    loaded: set[str] = field(default_factory=set)


_REGISTRY = _Registry()


def register(kind: str, name: str, **facts: Any) -> Callable[[Callable], Callable]:
    """Decorator: enter a part under (kind, name)."""

    def enter(part: Callable) -> Callable:
        known = _REGISTRY.cards.get((kind, name))
        if known is not None and (known.part.__module__, known.part.__qualname__) != (part.__module__, part.__qualname__):
            raise ConfigError(f"two parts of kind {kind} are called '{name}': {known.part.__module__} and {part.__module__}; rename one")
        _REGISTRY.cards[kind, name] = Card(kind, name, part, **facts)
        return part

    return enter


def strategy(
    *,
    needs: tuple[str, ...] = (),
    of_labeled: tuple[str, ...] = (),
    source: str,
    nested: bool = False,
    reads_groups: bool = False,
    score: str | Callable | None = None,
    divisible: bool = False,
) -> Callable[[Callable], Callable]:
    """Decorator: register a function as the acquisition strategy of the same name. What says something of the prompt itself (embedding,
    words) is known of labeled prompts anyway; what says something of a response to it only if named in `of_labeled`."""
    facts = {"needs": frozenset(needs), "of_labeled": (PROMPT_SIGNALS & set(needs)) | set(of_labeled), "source": source, "nested": nested, "reads_groups": reads_groups, "score": score, "divisible": divisible}

    def enter(part: Callable) -> Callable:
        if extra := facts["of_labeled"] - facts["needs"]:
            raise ConfigError(f"strategy '{part.__name__}' names '{min(extra)}' in of_labeled and not in needs")
        if divisible and score is None:
            raise ConfigError(f"strategy '{part.__name__}' is declared divisible and names no score; give score=")
        return register("strategy", part.__name__, **facts)(part)

    return enter


def _load(kind: str) -> None:
    if kind in _REGISTRY.loaded:
        return
    if kind not in HOMES:
        raise ConfigError(f"unknown kind of part '{kind}'; {near(kind, HOMES)}")
    _REGISTRY.loaded.add(kind)
    for module in HOMES[kind]:
        importlib.import_module(module)
    for point in importlib.metadata.entry_points(group=f"outlay.{PLURAL.get(kind, kind + 's')}"):
        point.load()


def cards(kind: str) -> list[Card]:
    """All registered parts of a kind, by name."""
    _load(kind)
    return [card for (k, _), card in sorted(_REGISTRY.cards.items(), key=lambda item: item[0]) if k == kind]


def card(kind: str, name: str) -> Card:
    """The part of that name; a ConfigError names the near match."""
    _load(kind)
    try:
        return _REGISTRY.cards[kind, name]
    except KeyError:
        raise ConfigError(f"unknown {kind} '{name}'; {near(name, [c.name for c in cards(kind)])}") from None


def parse(spec: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """"mmr(trade_off=0.3)" or {"use": "mmr", "trade_off": 0.3} -> ("mmr", {"trade_off": 0.3})."""
    if isinstance(spec, Mapping):
        if "use" not in spec:
            raise ConfigError(f"a part needs the key 'use' with its name, got {dict(spec)!r}")
        return str(spec["use"]), {str(k): v for k, v in spec.items() if k != "use"}
    try:
        node = ast.parse(spec.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, {}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args and all(k.arg for k in node.keywords):
            return node.func.id, {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
    except (SyntaxError, ValueError):
        pass
    raise ConfigError(f"cannot read the spec {spec!r}; write name or name(option=value, ...)")


def build(kind: str, spec: str | Mapping[str, Any], **extra: Any) -> Any:
    """The part with its options checked and bound: a strategy (view, k, rng) or an instance of the part's dataclass.

    `extra` are options that the program adds (a run's paths); they win over nothing: giving one in the spec is an error.
    """
    from pydantic import TypeAdapter, ValidationError

    name, options = parse(spec)
    entry = card(kind, name)
    for key in options:
        if key not in entry.options or key in extra:
            raise ConfigError(f"{kind} '{name}' has no option '{key}'; {near(key, [o for o in entry.options if o not in extra]) if entry.options else 'it has no options'}")
    options |= extra
    for key, default in entry.options.items():
        if (default is dataclasses.MISSING or default is inspect.Parameter.empty) and key not in options:
            raise ConfigError(f"{kind} '{name}' needs the option '{key}'")
    hints = get_type_hints(entry.part, include_extras=True) if options else {}
    for key, value in options.items():
        try:
            options[key] = TypeAdapter(hints.get(key, Any)).validate_python(value)
        except ValidationError as bad:
            raise ConfigError(f"{kind} '{name}', option '{key}' = {value!r}: {bad.errors()[0]['msg'].lower()}") from None
    if not dataclasses.is_dataclass(entry.part):
        return functools.partial(entry.part, **options) if options else entry.part
    return entry.part(**options)
