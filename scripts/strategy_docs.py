"""Write docs/strategies.md and its pictures from the registry: .venv/bin/python scripts/strategy_docs.py

A strategy's section is its registry card and its docstring; the picture is what it really buys from a small pool in the plane.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np

from outlay import registry, seeds
from outlay.acquisition import select
from outlay.types import PROMPT_SIGNALS, Signals, View

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PICTURES = DOCS / "strategies.md", DOCS / "strategies"
PICKS = 24
SIZES = (38, 26, 18, 12, 8)  # prompts of each task
MARKERS = "osD^v"
SHADES = ("#ccd8e4", "#a6bdd4", "#7596bb", "#3a6898")  # certain to uncertain
DRAWN_AS = {"uncertainty_filtered_facility_location": "uncertainty_filtered_facility_location(factor=2)"}  # 4 would let the whole toy pool through
PICKED, BOUGHT = "#c8321e", "#111111"

INTRO = """# Acquisition strategies

<!-- Written by scripts/strategy_docs.py from the registry; change the docstrings, then run it again. -->

An acquisition strategy chooses which k prompts to buy next. It sees numbers per prompt (signals), which prompts are unlabeled and
labeled, their groups if it says so, and a lottery number each; never a model, a text or a gold answer. Write its name, with
options if any, into `strategies:` of a study's config, e.g. `facility_location(kernel='rbf')`.

- **Signals** are computed by the scorer, only those that are read, and paid for in the ledger. Entropies, log-probabilities and margins
  are in nats, of the model's own greedy response to the prompt. *Live* signals are computed again with every round's model; the
  *frozen* embedding is the base model's, once (`embedding: live` in the config makes it live). The words of a prompt are known from its
  text alone. The scorer `llm` gives every signal but the three that `hadas` reads, which come from judge models.
- `sample_entropy`, `reward_gap` and `apl` are made for campaigns that buy preferences ([preferences.md](preferences.md)).
- **Nested**: the first picks do not depend on how many are bought. Where all signals are frozen too and training starts from the
  base every time, more rounds buy the same prompts, so a study runs one round and says so in `rounds_run`.
- **Groups**: strategies that read them know the task of a prompt, which others have to guess. They are marked in the report.
- Ties are broken by the lottery, never by the order of the file; the same seed buys the same prompts in any order of the pool.

Every picture is the same made-up pool, seen from above: its embedding is three-dimensional, on half a sphere. The shape is the
prompt's task, a darker one is one that the model is less sure of, crosses are already bought, and red numbers are the first
"""

ADD = """## Add a strategy

One function of about 20 lines in one file, with one decorator. It gets options in the config, the contract's tests, the command line,
the report and (inside this repository) a section here, with no other edit.

```python
import numpy as np
from outlay import strategy

@strategy(needs=("mean_entropy", "embedding"), source="our paper, equation 3")
def unsure_and_far(view, k, rng, *, trade_off: float = 0.5):
    \"\"\"Prompts that the model is unsure of and that lie far from what is labeled.\"\"\"
    score = view.score("mean_entropy")                       # (m,), aligned with view.unlabeled
    if len(view.labeled):
        near = view.score("embedding") @ view.signals.columns["embedding"][view.labeled].T
        score = score - trade_off * near.max(axis=1)
    return view.unlabeled[np.lexsort((view.lottery[view.unlabeled], -score))[:k]]   # ties by lottery, never by position
```

- Return k different rows out of `view.unlabeled`, the most wanted first.
- Declare what is read: `needs=` (signals) and `reads_groups=True`. Undeclared signals and groups are not there at run time.
- Draw from `rng` only, and only after putting the rows in the order of `view.lottery`.
- `nested=True` promises that the first j picks do not depend on k and, given what is bought, that two rounds buy what one would.
- `score=` names what was maximised, for the record: a signal, "-signal" where the lowest is wanted, or a function (view, picks).
- `divisible=True` says that the highest scores are bought and that a prompt's score is a worth of its own, at least 0 and proportional to the signals: a campaign may
  then divide it by what the prompt costs (`per_cost`).
- `outlay.testing.check_strategy(unsure_and_far)` checks all of it but the promise about rounds and scores of at least 0. Inside this repository put the
  function into a file of `src/outlay/acquisition/` that its `__init__` imports; elsewhere name the module in the entry points `outlay.strategies`.
"""


def cards() -> list[registry.Card]:
    """The strategies of this repository, not those of other packages."""
    return [card for card in registry.cards("strategy") if card.part.__module__.startswith("outlay.")]


def page() -> str:
    """docs/strategies.md."""
    table = ["| strategy | buys | reads | nested | groups |", "|---|---|---|---|---|"]
    for card in cards():
        reads = ", ".join(f"`{name}`" for name in sorted(card.needs)) or "nothing"
        table.append(f"| [{card.name}](#{card.name}) | {card.summary} | {reads} | {_yes(card.nested)} | {_yes(card.reads_groups)} |")
    return "\n\n".join([INTRO + f"{PICKS} picks in their order.", "\n".join(table), *map(section, cards()), ADD])


def section(card: registry.Card) -> str:
    """What there is to know of one strategy."""
    details = [" ".join(paragraph.split()) for paragraph in inspect.getdoc(card.part).split("\n\n")]
    options = ", ".join(f"`{name}={default!r}`" for name, default in card.options.items()) or "none"
    facts = [
        f"- Signals: {_signals(card)}",
        f"- Options: {options}",
        f"- Nested: {_nested(card)}",
        f"- Groups: {'read' if card.reads_groups else 'not read'}",
        f"- Source: {card.source}",
    ]
    return "\n\n".join([f"## {card.name}", *details, "\n".join(facts), f"![The first {PICKS} picks of {DRAWN_AS.get(card.name, card.name)}](strategies/{card.name}.svg)"])


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


def _signals(card: registry.Card) -> str:
    live = [f"`{name}`" for name in sorted(card.needs - PROMPT_SIGNALS)]
    parts = [f"{', '.join(live[:-1])}{' and ' if live[1:] else ''}{live[-1]}: live, computed again with every round's model"] if live else []
    parts += ["`words`: of the texts alone, never changes and costs nothing"] if "words" in card.needs else []
    parts += ["`embedding`: frozen, from the base model, unless the config says `embedding: live`"] if "embedding" in card.needs else []
    return "; ".join(parts) or "none, so scoring costs nothing"


def _nested(card: registry.Card) -> str:
    if not card.nested:
        return "no"
    return "yes; with frozen signals and cold starts a study runs one round only" if card.needs <= PROMPT_SIGNALS else "yes"


def toy_view() -> View:
    """Five tasks on half a sphere, six prompts of them bought. The model is unsure in the north-east and of the smaller tasks."""
    rng = seeds.generator(0, "strategy docs")
    task = np.repeat(np.arange(len(SIZES)), SIZES)
    centres = np.array([[-0.45, 0.2], [0.35, 0.5], [0.35, -0.35], [-0.25, -0.6], [0.75, 0.0]])
    plane = centres[task] + 0.14 * rng.standard_normal((len(task), 2))
    height = np.sqrt(np.maximum(1 - (plane**2).sum(axis=1), 0.02))
    entropy = np.exp(0.9 * plane.sum(axis=1) + 0.15 * task + 0.25 * rng.standard_normal(len(task)))
    columns = {
        "embedding": np.column_stack([plane, height]),
        "mean_entropy": entropy,
        "max_entropy": entropy * (1.5 + rng.random(len(task))),
        "mean_logprob": -entropy * (0.5 + 0.2 * rng.random(len(task))),
        "sum_logprob": -entropy * (2 + 6 * rng.random(len(task))),
        "mean_margin": 3 * np.exp(-entropy) + 0.3 * rng.random(len(task)),
        "min_margin": 2 * np.exp(-entropy) * rng.random(len(task)),
    }
    labeled = np.sort(rng.choice(len(task), 6, replace=False))
    columns |= {
        "gradient": columns["embedding"] * (1 - np.exp(-entropy / 2))[:, None],
        "bleu_variance": 1 - np.exp(-entropy * (0.5 + 0.5 * rng.random(len(task)))),
        "words": _words(task, plane, rng),
        "hallucination_semantic": 1 - np.exp(-entropy / 2),
        "hallucination_discourse": rng.random(len(task)) * np.linspace(0.2, 1, len(SIZES))[task],
        "hallucination_content": (1 - np.exp(-entropy)) * rng.random(len(task)),
        "sample_entropy": entropy * (2 + 6 * rng.random(len(task))),
        "reward_gap": np.abs(rng.standard_normal(len(task))) * np.sqrt(entropy),
    }
    ids = [f"prompt {row}" for row in range(len(task))]
    signals = Signals({name: values.astype(np.int32 if name == "words" else np.float32) for name, values in columns.items()})
    return View(signals, np.setdiff1d(np.arange(len(task)), labeled), labeled, np.array([f"task {t}" for t in task]), seeds.lottery(0, ids))


def _words(task: np.ndarray, plane: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every prompt has words of its task, of its place and of its own. (n, 5)."""
    place = (np.floor(plane * 4).astype(int) + 8) @ np.array([16, 1])
    parts = [task, len(SIZES) + 3 * task + rng.integers(3, size=len(task)), 50 + place, 400 + rng.integers(60, size=len(task)), 400 + rng.integers(60, size=len(task))]
    return np.column_stack(parts)


def draw(card: registry.Card, path: Path) -> None:
    """The picks of a strategy with its default options (or as DRAWN_AS says), as an SVG whose bytes depend on nothing else."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    view = toy_view()
    picks = select(DRAWN_AS.get(card.name, card.name), view, PICKS, seeds.generator(0, "strategy docs", card.name)).rows
    plane, entropy = view.signals.columns["embedding"][:, :2], view.signals.columns["mean_entropy"]
    shade = np.searchsorted(np.quantile(entropy, [0.25, 0.5, 0.75]), entropy)
    with plt.rc_context({"svg.hashsalt": "outlay", "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}):
        figure, axes = plt.subplots(figsize=(4, 4))
        axes.set_axis_off()
        axes.set_aspect("equal")
        for name, marker in zip(np.unique(view.groups), MARKERS, strict=True):
            for level, colour in enumerate(SHADES):
                rows = np.flatnonzero((view.groups == name) & (shade == level))
                axes.plot(*plane[rows].T, marker, color=colour, markersize=5, markeredgewidth=0)
        axes.plot(*plane[view.labeled].T, "x", color=BOUGHT, markersize=7, markeredgewidth=1.5)
        axes.plot(*plane[picks].T, "o", color=PICKED, markersize=9, fillstyle="none")
        for number, row in enumerate(picks, 1):
            axes.annotate(str(number), plane[row], xytext=(4, 4), textcoords="offset points", color=PICKED, fontsize=8)
        figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        plt.close(figure)


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    for old in PICTURES.glob("*.svg"):
        old.unlink()
    for card in cards():
        draw(card, PICTURES / f"{card.name}.svg")
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
