"""The report's figures: tidy tables in, a matplotlib Figure out. One panel each, so that they can be read on a phone.

Colours are Okabe & Ito's (2008), which colour-blind readers can tell apart; a strategy has its colour and marker in every figure.
"""

from __future__ import annotations

import functools
import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from .words import cut

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP"
LINES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1, 1, 1, 1, 1)))
GREY, INK = "#767676", "#222222"
PHASE_STYLE = {"score": ("#4d4d4d", ""), "annotate": ("#a6a6a6", "////"), "train": ("#dddddd", "||||")}
SHADES = {"jaccard": {"cmap": "Blues", "vmin": 0, "vmax": 1}, "correlation": {"cmap": "PuOr", "vmin": -1, "vmax": 1}}
SIZE = (4.8, 3.6)
MOST_WRITTEN = 16  # arms of a matrix whose cells have numbers in them
RC = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Verdana"], "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.edgecolor": GREY, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e6e6e6", "legend.frameon": False, "legend.fontsize": 8, "hatch.linewidth": 0.5,
    "svg.hashsalt": "outlay", "svg.fonttype": "none", "figure.facecolor": "white", "figure.constrained_layout.use": True,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Style:
    """How a strategy is drawn: everywhere the same."""

    colour: str
    marker: str


def styles(strategies: Sequence[str]) -> dict[str, Style]:
    """Random, the baseline, is grey."""
    others = [name for name in strategies if name != "random"]
    found = {name: Style(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(others)}
    return {"random": Style(GREY, "X")} | found


def render(figure: Figure) -> tuple[str, bytes]:
    """(SVG, PNG) of a figure; the same figure gives the same bytes."""
    svg, png = io.StringIO(), io.BytesIO()
    with matplotlib.rc_context(RC):
        if (layout := figure.get_layout_engine()) is not None:
            layout.execute(figure)
        figure.set_layout_engine("none")  # laid out once, for both files, which savefig would draw twice each
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
        figure.set_dpi(160)
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    return _slim(svg.getvalue()), png.getvalue()


def _slim(svg: str) -> str:
    """The same picture in about half the bytes: coordinates to a hundredth of a point, no indentation, and of the names only those that
    are referred to or were given with set_gid."""
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(?:d|x|y)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), svg)
    svg = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", svg)
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([\w.]+_\d+|[mph][0-9a-f]{10})"', lambda found: found[0] if found[1] in used else "", svg)
    return re.sub(r"\s*\n\s*", " ", svg).strip() + "\n"


def _axes(title: str, note: str, size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    """A figure with a title and, below it, n and the meaning of the intervals."""
    figure = Figure(figsize=size)
    axes = figure.add_subplot()
    axes.set_title(textwrap.fill(title, int((size[0] - 0.7) * 11)) + "\n", linespacing=1.3)  # about 11 letters an inch
    axes.annotate(note, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontsize=7.5, color="#555555", va="bottom")
    return figure, axes


def _drawn(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Figures are made under the report's style, whatever the caller's is."""

    @functools.wraps(draw)
    def wrapped(*args: object, **options: object) -> Figure:
        with matplotlib.rc_context(RC):
            return draw(*args, **options)

    return wrapped


def _key(axes: Axes) -> None:
    """A legend below the figure, in as many columns as its labels leave room for."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        width, height = axes.figure.get_size_inches()
        columns = min(3, max(1, int(13.75 * width) // (max(map(len, labels)) + 9)))
        axes.figure.set_size_inches(width, height + 0.17 * max(-(-len(labels) // columns) - 4, 0))  # a long legend takes nothing from the axes
        axes.figure.legend(handles, [cut(label, 60) for label in labels], loc="outside lower left", ncols=columns, columnspacing=1.2, handlelength=3)


def _whiskers(axes: Axes, x: object, part: pd.DataFrame, name: str, style: Style, **options: object) -> None:
    """Means with their intervals."""
    mean = part[name].to_numpy()
    reach = np.abs(part[[f"{name}_low", f"{name}_high"]].to_numpy().T - mean)
    axes.errorbar(x, mean, yerr=np.nan_to_num(reach), color=style.colour, marker=style.marker, markersize=5, capsize=2.5, elinewidth=1, **options)


@_drawn
def learning_curves(curves: pd.DataFrame, reference: pd.DataFrame, base: pd.Series, style: Mapping[str, Style], title: str, note: str) -> Figure:
    """Accuracy against annotations bought: a line per strategy and number of rounds, random's reference curve as a grey band.
    All start at the base model, which no seed changes: its whisker is the only one over items."""
    figure, axes = _axes(title, note, (4.8, 4.1))
    if len(reference):
        _band(axes, reference, "#cfcfcf", 0.6)
        axes.plot(reference["labels"], reference["accuracy"], color=GREY, marker="X", markersize=4, linewidth=1.5, label="random (grey band)")
    numbers = sorted(curves["rounds"].unique())
    lines = [(key, part) for key, part in curves.groupby(["strategy", "rounds"], sort=False) if key != ("random", 1) or reference.empty]
    step = 0.006 * curves["labels"].max()  # whiskers side by side
    for i, ((strategy, m), part) in enumerate(lines):
        look, line = style[strategy], LINES[numbers.index(m) % len(LINES)]
        _band(axes, part, look.colour, 0.08)
        axes.plot(part["labels"], part["accuracy"], color=look.colour, linestyle=line, linewidth=1.5)
        later = part[part["labels"] > 0]
        shift = step * (i - (len(lines) - 1) / 2)
        _whiskers(axes, later["labels"] + shift, later, "accuracy", look, linestyle="none")
        axes.plot([], [], color=look.colour, linestyle=line, linewidth=1.5, marker=look.marker, markersize=5, label=f"{strategy} m={m}")
    _whiskers(axes, [0], pd.DataFrame([base]).astype({"accuracy": float}), "accuracy", Style("#000000", "*"), linestyle="none", label="base model")
    axes.set(xlabel="annotations bought", ylabel="accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _key(axes)
    return figure


def _band(axes: Axes, part: pd.DataFrame, colour: str, alpha: float) -> None:
    """The interval over seeds along a curve; none at the base model."""
    low, high = (part[f"accuracy_{end}"].where(part["labels"] > 0, part["accuracy"]) for end in ("low", "high"))
    axes.fill_between(part["labels"], low, high, color=colour, alpha=alpha, linewidth=0)


def _by_rounds(axes: Axes, table: pd.DataFrame, name: str, style: Mapping[str, Style]) -> None:
    """A measure against the number of rounds, side by side; dotted where more rounds are the same run."""
    numbers = sorted({*table["rounds"], *(int(m) for same in table.get("same_as", []) for m in same.split(",") if m)})
    place = {m: i for i, m in enumerate(numbers)}
    strategies = list(dict.fromkeys(table["strategy"]))
    for i, strategy in enumerate(strategies):
        part = table[table["strategy"] == strategy].sort_values("rounds")
        shift = 0.12 * (i - (len(strategies) - 1) / 2)
        _whiskers(axes, part["rounds"].map(place) + shift, part, name, style[strategy], linewidth=1.2, label=strategy)
        for _, row in part.iterrows():
            if row.get("same_as"):
                ends = [place[row["rounds"]] + shift, place[int(row["same_as"].split(",")[-1])] + shift]
                axes.plot(ends, [row[name]] * 2, color=style[strategy].colour, linestyle=":", linewidth=1.2)
    axes.set_xticks(range(len(numbers)), [str(m) for m in numbers])
    axes.set_xlim(-0.5, len(numbers) - 0.5)
    axes.set_xlabel("rounds m")


@_drawn
def accuracy_by_rounds(summary: pd.DataFrame, style: Mapping[str, Style], title: str, note: str) -> Figure:
    """Final accuracy against the number of rounds."""
    figure, axes = _axes(title, note)
    _by_rounds(axes, summary, "accuracy", style)
    axes.set_ylabel("accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _key(axes)
    return figure


@_drawn
def gain_over_one_round(differences: pd.DataFrame, style: Mapping[str, Style], title: str, note: str) -> Figure:
    """Accuracy minus that of one round of the same strategy, paired by seed, in percentage points."""
    figure, axes = _axes(title, note)
    points = differences.assign(**{c: 100 * differences[c] for c in ("difference", "difference_low", "difference_high")})
    axes.axhline(0, color=INK, linewidth=0.8)
    _by_rounds(axes, points, "difference", style)
    axes.set_ylabel("difference to m=1 (points)")
    _key(axes)
    return figure


@_drawn
def diversity_by_rounds(summary: pd.DataFrame, measure: str, style: Mapping[str, Style], title: str, note: str, label: str) -> Figure:
    """A diversity measure of what was bought, against the number of rounds; the grey band is random sets of the same size."""
    figure, axes = _axes(title, note)
    random = summary.iloc[0]
    axes.axhspan(random[f"{measure}_random_low"], random[f"{measure}_random_high"], color="#d9d9d9", alpha=0.7, linewidth=0, label="random sets, 95 %")
    axes.axhline(random[f"{measure}_random"], color=GREY, linewidth=1)
    _by_rounds(axes, summary, measure, style)
    axes.set_ylabel(label)
    if measure == "group_coverage":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    _key(axes)
    return figure


@_drawn
def cost(costs: pd.DataFrame, names: pd.Series, quantity: str, unit: str, title: str, note: str) -> Figure:
    """Cost of a campaign by phase, an arm a bar; the whisker is the interval of the total."""
    arms = list(dict.fromkeys(names))
    figure, axes = _axes(title, note, (4.8 if max(map(len, arms)) < 30 else 6.8, 1.7 + 0.25 * len(arms)))
    table = costs.assign(arm=names)
    left = np.zeros(len(arms))
    for phase, (colour, hatch) in PHASE_STYLE.items():
        width = table[table["phase"] == phase].set_index("arm").loc[arms, quantity].to_numpy()
        axes.barh(arms, width, left=left, color=colour, hatch=hatch, edgecolor="white" if hatch != "||||" else "#888888", linewidth=0.5, height=0.7, label=phase)
        left += width
    total = table[table["phase"] == "total"].set_index("arm").loc[arms]
    reach = np.abs(total[[f"{quantity}_low", f"{quantity}_high"]].to_numpy().T - total[quantity].to_numpy())
    axes.errorbar(total[quantity], arms, xerr=np.nan_to_num(reach), fmt="none", ecolor=INK, capsize=2.5, elinewidth=1)
    axes.xaxis.set_major_formatter(EngFormatter(unit=unit))
    axes.set(xlim=(0, None), ylim=(len(arms) - 0.4, -0.6))
    axes.grid(axis="y", visible=False)
    _key(axes)
    return figure


@_drawn
def beside(table: pd.DataFrame, names: Sequence[str], columns: Sequence[tuple[str, str]], title: str, note: str, *, share: bool) -> Figure:
    """Numbers with intervals, an arm a line and each of the (label, column) a mark; as shares of one, or else in points around zero."""
    figure, axes = _axes(title, note, (4.8, 1.7 + 0.27 * len(names)))
    for i, (label, column) in enumerate(columns):
        mean = 100 * table[column].to_numpy(dtype=float)
        reach = np.nan_to_num(np.abs(100 * table[[f"{column}_low", f"{column}_high"]].to_numpy(dtype=float).T - mean))
        y = np.arange(len(names)) + 0.24 * (i - (len(columns) - 1) / 2)
        axes.errorbar(mean, y, xerr=reach, fmt=MARKERS[i], color=COLOURS[i], markersize=4, capsize=2, elinewidth=1, label=label)
    if share:
        axes.xaxis.set_major_formatter(PercentFormatter(100))
    else:
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_xlabel("percentage points")
    axes.set_yticks(np.arange(len(names)), [cut(name, 44) for name in names], fontsize=7.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    _key(axes)
    return figure


@_drawn
def bought_by_round(shares: pd.DataFrame, title: str, note: str, most: int = 7) -> Figure:
    """Stacked shares of the groups in each round's batch, the pool's beside them; groups beyond the `most` largest are one."""
    figure, axes = _axes(title, note, (4.8, 3.9))
    order = list(shares.loc[shares["strategy"] == "pool", "group"])
    kept = order[:most] if len(order) > most + 1 else order[: most + 1]
    rest = f"{len(order) - len(kept)} other groups"
    table = shares.assign(group=shares["group"].where(shares["group"].isin(kept), rest))
    wide = table.pivot_table(index="round", columns="group", values="share", aggfunc="sum")
    size = shares.groupby("round")["bought"].first()
    ticks = ["pool" if number == 0 else f"{number}\n({size[number]:g})" for number in wide.index]
    bottom = np.zeros(len(wide))
    palette = (*COLOURS[:6], "#F0E442", "#000000")
    for i, group in enumerate([*kept, *([rest] if rest in wide else [])]):
        colour = "#bbbbbb" if group == rest else palette[i]
        axes.bar(ticks, wide[group], bottom=bottom, color=colour, edgecolor="white", linewidth=0.8, width=0.75, label=cut(group, 24))
        bottom += wide[group].to_numpy()
    axes.set(xlabel="round (annotations bought in it)", ylabel="share of what was bought", ylim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="x", visible=False)
    _key(axes)
    return figure


@_drawn
def agreement(overlaps: pd.DataFrame, value: str, title: str, note: str) -> Figure:
    """Matrix of how much every two arms agree ("jaccard", 0 to 1, or "correlation", -1 to 1), mean over seeds and half the width of its
    interval; "–" where it is not defined. Of many arms colours only: numbers would be too small to read."""
    names = list(dict.fromkeys(overlaps["a"]))
    n, written = len(names), len(names) <= MOST_WRITTEN
    figure, axes = _axes(title, note, (max(4.8, 2.6 + (0.46 if written else 0.2) * n), max(3.2, 1.2 + (0.36 if written else 0.2) * n)))
    mean = overlaps.pivot(index="a", columns="b", values=value).loc[names, names].to_numpy()
    reach = overlaps.assign(half=overlaps[f"{value}_high"] - overlaps[value]).pivot(index="a", columns="b", values="half").loc[names, names].to_numpy()
    shades = axes.imshow(mean, **SHADES[value], aspect="auto", interpolation="nearest")
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    if not written:
        figure.colorbar(shades, ax=axes, fraction=0.04, pad=0.02).outline.set_visible(False)
    for i in range(n if written else 0):
        for j in range(n):
            spread = f"\n±{reach[i, j]:.2f}" if reach[i, j] > 0 else ""
            said = "–" if np.isnan(mean[i, j]) else f"{mean[i, j]:.2f}{spread}"
            axes.text(j, i, said, ha="center", va="center", fontsize=6.5, color="white" if abs(mean[i, j]) > 0.6 else INK)
    axes.set_xticks(range(n), [str(i + 1) for i in range(n)], fontsize=None if written else 5.5)
    axes.set_yticks(range(n), [f"{cut(name, 44)}  {i + 1}" for i, name in enumerate(names)], fontsize=None if written else 6.5)
    axes.grid(visible=False)
    axes.grid(which="minor", color="white", linewidth=1 if written else 0.4)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure
