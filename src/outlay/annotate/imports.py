"""`outlay campaign import`: answers from files into the hand-offs that asked for them, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..oracles import handoff
from ..store import Store
from . import formats
from .handoff import collect
from .verdict import Verdict


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an import: whether it passed, and the verdicts of the hand-offs in words."""

    ok: bool
    text: str


def bring_in(root: Path, files: Sequence[Path], source: str | None, *, annotator: str = "", dry_run: bool = False) -> Imported:
    """Examine all answers of all files against every hand-off; if nothing stands against any of them, keep them.

    A kill between the hand-offs of the dev set and of a round leaves one of them written: the same import again writes the other one.
    Raises DataError for a file that cannot be read, or where nothing was asked yet.
    """
    with Store(root).lock(".lock"):
        folders = handoff.folders(root)
        answers = [answer for path in files for answer in formats.read(path, source, annotator=annotator)]
        home = {request["id"]: folder for folder in folders for request in handoff.requests(folder)}
        parts = {folder: [a for a in answers if home.get(a.id, folders[-1]) == folder] for folder in folders}  # unknown ids: refused by the last one
        kept = {folder: handoff.collected(folder) for folder in folders}

        def go(folder: Path, dry: bool) -> Verdict:
            others = [a for other in folders if other != folder for a in kept[other]]
            return collect(folder, parts[folder], earlier=others, dry_run=dry)

        asked = [folder for folder in folders if parts[folder]]
        verdicts = {folder: go(folder, True) for folder in asked}
        ok = all(verdict.ok for verdict in verdicts.values())
        if ok and not dry_run:
            for folder in asked:
                go(folder, False)
        lead = "would be imported" if dry_run else "imported"
        if not ok:  # a hand-off without a problem keeps nothing either
            verdicts = {folder: verdict for folder, verdict in verdicts.items() if not verdict.ok}
            lead = "refused"
    return Imported(ok, "\n".join(f"{lead}, {_name(folder)}: {verdict.text()}" for folder, verdict in verdicts.items()) or "there is no answer in these files")


def _name(folder: Path) -> str:
    number = int(folder.name.removeprefix("round-"))
    return f"round {number}" if number else "the dev set"
