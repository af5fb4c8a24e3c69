"""The two figures whose points say what they are: accuracy against cost, and the map of the pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from ..measure import value
from .figures import GREY, Style, _axes, _drawn, _key

# From early to late, in Okabe & Ito's colours, each of which can be seen on white and on black.
EARLY_TO_LATE = LinearSegmentedColormap.from_list("rounds", ["#0072B2", "#009E73", "#E69F00", "#D55E00"])


def round_colours(rounds: int) -> list[str]:
    """A colour for each round."""
    return [to_hex(EARLY_TO_LATE(at)) for at in (np.linspace(0, 1, rounds) if rounds > 1 else [0.0])]


@_drawn
def front(arms: pd.DataFrame, style: Mapping[str, Style], prefix: str, title: str, note: str) -> Figure:
    """Accuracy against FLOPs, an arm a point, larger with more rounds; the line joins those that no other mean beats. The points are
    named `prefix`-0, `prefix`-1, ... in the order of the rows."""
    figure, axes = _axes(title, note, (6.8, 4.6))
    best = arms[value.on_front(arms["accuracy"], arms["flops"])].sort_values("flops")
    axes.step(best["flops"], best["accuracy"], where="post", color=GREY, linewidth=1, zorder=1, label="no other is as good and cheaper")
    numbers = sorted(arms["rounds"].unique())
    named: set[str] = set()
    for i, (_, row) in enumerate(arms.iterrows()):
        look = style[row["strategy"]]
        reach = np.nan_to_num([[row["accuracy"] - row["accuracy_low"]], [row["accuracy_high"] - row["accuracy"]]])
        axes.errorbar([row["flops"]], [row["accuracy"]], yerr=reach, fmt="none", ecolor=look.colour, alpha=0.3, linewidth=1, zorder=1)
        label = None if row["strategy"] in named else row["strategy"]
        named.add(row["strategy"])
        size = 5 + 4 * numbers.index(row["rounds"]) / max(len(numbers) - 1, 1)
        (point,) = axes.plot([row["flops"]], [row["accuracy"]], marker=look.marker, color=look.colour, markersize=size, linestyle="none", label=label)
        point.set_gid(f"{prefix}-{i}")
    if (arms["flops"] > 0).all():
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(EngFormatter(sep=" "))
        axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.set(xlabel="FLOPs of a campaign, measurement left out", ylabel="accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _key(axes)
    return figure


@_drawn
def pool_map(x: Sequence[int], y: Sequence[int], rounds: Sequence[Sequence[int]], title: str, note: str) -> Figure:
    """Prompts as points, those that each round bought coloured from early to late. `rounds`: rows of x and y."""
    figure, axes = _axes(title, note, (4.8, 4.4))
    x, y = np.asarray(x), np.asarray(y)
    axes.scatter(x, y, s=5, color="#c4c4c4", linewidths=0, rasterized=True)
    for number, (rows, colour) in enumerate(zip(rounds, round_colours(len(rounds)), strict=True), 1):
        axes.scatter(x[list(rows)], y[list(rows)], s=16, color=colour, edgecolors="white", linewidths=0.4, label=f"round {number} ({len(rows)})")
    axes.set(xticks=[], yticks=[], aspect="equal")
    _key(axes)
    return figure


def inline(svg: str, prefix: str, labels: Sequence[str]) -> str:
    """The figure as part of a page: its points take the keyboard's focus, and say what they are."""
    from markupsafe import Markup, escape

    for i, label in enumerate(labels):
        mark = f'<g id="{prefix}-{i}">'
        if svg.count(mark) != 1:
            raise ValueError(f"point {mark} occurs {svg.count(mark)} times in the figure")
        svg = svg.replace(mark, f'<g class="point" role="img" tabindex="{-1 if i else 0}" aria-label="{escape(label)}">')
    return Markup(svg)
