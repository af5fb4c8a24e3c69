"""Pages and what lies beside them: every figure as SVG and PNG, every table as CSV."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..store import write_atomic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Gallery", "Shown", "embedded", "file_name", "render", "script", "write_tables"]


@dataclass(frozen=True, slots=True)
class Shown:
    """A figure on the page: as an image (`image` is a data URI) or, where `inline`, as a part of the page whose points answer to the pointer."""

    name: str
    caption: str
    image: str
    inline: str = ""


@dataclass(frozen=True, slots=True)
class Gallery:
    """The figures of a page by section. Those that are added are also written into the folder `out`, as SVG and PNG."""

    out: Path
    sections: dict[str, list[Shown]] = field(default_factory=dict)

    def add(self, section: str, name: str, caption: str, figure: Figure, points: tuple[str, list[str]] | None = None) -> None:
        """`points`: the prefix of the names (set_gid) of its points and what each says; the figure then becomes part of the page."""
        from . import figures, scatter

        svg, png = figures.render(figure)
        for kind, content in (("svg", svg.encode()), ("png", png)):
            write_atomic(self.out / f"{name}.{kind}", content)
        image = "" if points else "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
        self.sections.setdefault(section, []).append(Shown(name, caption, image, scatter.inline(svg, *points) if points else ""))

    def of(self, section: str) -> list[Shown]:
        return self.sections.get(section, [])


def write_tables(out: Path, numbers: Mapping[str, pd.DataFrame]) -> None:
    """Every table as CSV with all its digits."""
    for name, table in numbers.items():
        write_atomic(out / f"{name}.csv", table.to_csv(index=False, lineterminator="\n").encode())


def render(template: str, **values: Any) -> str:
    """A page from its template. Text is escaped; a name that is not given is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(loader=PackageLoader("outlay", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # The page allows this one script by its hash: whatever a prompt or a response holds, nothing else runs.
    made.filters["digest"] = lambda script: "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return made.get_template(template).render(**values)


def file_name(name: str) -> str:
    """A file name from a strategy's spec."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-")


def script() -> str:
    """The report's script, ready to stand on the page."""
    from markupsafe import Markup

    return Markup(files("outlay.report").joinpath("page.js").read_text(encoding="utf-8"))


def embedded(data: object) -> str:
    """JSON that cannot end the element it stands in, whatever its texts hold."""
    import json

    from markupsafe import Markup

    return Markup(json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))
