"""The closing report of a campaign: one HTML page without scripts or anything from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from ..measure.stats import Interval, accuracy_interval
from . import status
from .state import State

WIDTH, HEIGHT, EDGE = 560, 240, 44  # of the curve, in pixels


def page(state: State, tests: Mapping[str, Interval], rows: Sequence[Mapping[str, Any]]) -> str:
    """The page. tests: accuracies on the test set by model, empty where there is none; rows: the provenance of what was asked."""
    from jinja2 import Environment

    live = state.live
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(files("outlay").joinpath("real/report.html.jinja").read_text(encoding="utf-8"))
    asked = [row for row in rows if row["kind"] != "skip"]
    return template.render(
        config=live.config, how=live.asked.how, study=live.bench.study, rounds=live.trained(), budget=status.budget(state), additions=list(status.additions(state)), forecast=status.forecast(state), verdict=status.verdict(state),
        together=state.running_audit, agreement=state.agreement.text() if live.config.annotators.per_item > 1 else "", people=state.by_annotator.most_common(), pace=state.pace,
        stages=state.stages, percent=status.percent, tests=tests, curve=curve(_points(state)), wanted=sorted(asked, key=lambda r: -(r.get("represents") or 0))[:8], asked=asked,
    )  # fmt: skip


def _points(state: State) -> list[tuple[int, Interval]]:
    labels, total = [], 0
    if state.base is not None:
        labels.append((0, accuracy_interval(state.base.columns["correct"])))
    for stage in state.rounds:
        total += stage.bought
        if stage.trained and stage.dev_accuracy is not None:
            labels.append((total, stage.dev_accuracy))
    return labels


def curve(points: Sequence[tuple[int, Interval]]) -> dict[str, Any] | None:
    """Where the marks of the learning curve lie, in pixels; None with fewer than two points."""
    if len(points) < 2:
        return None
    most = points[-1][0]

    def x(labels: int) -> float:
        return round(EDGE + labels / most * (WIDTH - 2 * EDGE), 1)

    def y(accuracy: float) -> float:
        return round(HEIGHT - EDGE / 2 - accuracy * (HEIGHT - EDGE), 1)

    marks = [{"x": x(n), "y": y(a.mean), "low": y(a.low), "high": y(a.high), "labels": n} for n, a in points]
    return {"width": WIDTH, "height": HEIGHT, "marks": marks, "grid": [(y(share), f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)], "left": EDGE, "right": WIDTH - EDGE}
