"""`outlay campaign import`: answers from files into the hand-offs that asked for them, all or nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..oracles import handoff
from ..store import Store
from . import formats
from .handoff import keep
from .verdict import examine


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an import: whether it passed, and the verdicts of the hand-offs in words."""

    ok: bool
    text: str


def bring_in(root: Path, files: Sequence[Path], source: str | None, *, annotator: str = "", dry_run: bool = False) -> Imported:
    """`take` the answers of all these files. Raises DataError for a file that cannot be read, or where nothing was asked yet."""
    return take(root, [answer for path in files for answer in formats.read(path, source, annotator=annotator)], dry_run=dry_run)


def take(root: Path, answers: Sequence[formats.Answer], *, dry_run: bool = False) -> Imported:
    """Examine the answers against every hand-off; if nothing stands against any of them, keep them.

    All hand-offs are locked meanwhile, so that the annotation page adds nothing in between. A kill between the hand-offs of the dev set and
    of a round leaves one of them written: the same import again writes the other one.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(Store(root).lock(".lock"))
        folders = handoff.folders(root)
        for folder in folders:
            held.enter_context(Store(folder).lock(".lock", wait=60.0))
        home = {request["id"]: folder for folder in folders for request in handoff.requests(folder)}
        kept = [annotation for folder in folders for annotation in handoff.collected(folder)]
        parts = {folder: [a for a in answers if home.get(a.id, folders[-1]) == folder] for folder in folders}  # unknown ids: refused by the last one
        verdicts = {folder: examine(part, handoff.requests(folder), kept, k=1) for folder, part in parts.items() if part}
        ok = all(verdict.ok for verdict in verdicts.values())
        if ok and not dry_run:
            for folder, verdict in verdicts.items():
                keep(folder, verdict)
    lead = "would be imported" if dry_run else "imported"
    if not ok:  # a hand-off without a problem keeps nothing either
        verdicts = {folder: verdict for folder, verdict in verdicts.items() if not verdict.ok}
        lead = "refused"
    return Imported(ok, "\n".join(f"{lead}, {_name(folder)}: {verdict.text()}" for folder, verdict in verdicts.items()) or "there is no answer in it")


def _name(folder: Path) -> str:
    number = int(folder.name.removeprefix("round-"))
    return f"round {number}" if number else "the dev set"
