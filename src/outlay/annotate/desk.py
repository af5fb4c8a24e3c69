"""What the annotation page knows: who is working on what, and every half-written response. SQLite in the run folder, so that a kill
loses nothing; finished answers go into the round's annotations.jsonl, through the same checks as an import."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from .. import seeds
from ..errors import DataError, OutlayError
from ..types import Annotation
from . import handoff
from .record import Answer

LEASE = 15 * 60.0  # seconds without a keystroke after which somebody else may get the item
LONGEST = 1_000_000  # characters of a response
SCHEMA = """
create table if not exists draft(annotator text, round int, id text, text text, seconds real, edited int, primary key(annotator, round, id));
create table if not exists claim(annotator text primary key, round int, id text, until real);
create table if not exists session(digest text primary key, annotator text);
create table if not exists link(digest text primary key);
create table if not exists fact(name text primary key, value text);
"""


class Refused(OutlayError):
    """The answer cannot be kept as it is; what was written stays."""


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True)
class Desk:
    """The annotators' work on a run. Every method is one transaction; several threads and processes may work at once."""

    run: Path
    _read: dict[Path, tuple[Any, Any]] = field(default_factory=dict, repr=False)

    @contextlib.contextmanager
    def _base(self) -> Iterator[sqlite3.Connection]:
        base = sqlite3.connect(self.run / "annotate.sqlite", timeout=60.0, isolation_level=None)
        try:
            base.executescript(SCHEMA)
            base.execute("begin immediate")
            yield base
            base.execute("commit")
        except sqlite3.Error as bad:
            raise OutlayError(f"{self.run / 'annotate.sqlite'}: {bad}; check the disk and the folder's permissions") from None
        finally:
            base.close()  # rolls back what was not committed

    # -- who ---------------------------------------------------------------------------------------------------------------

    def link(self) -> str:
        """A new token that lets one browser in, once."""
        token = secrets.token_urlsafe(24)
        with self._base() as base:
            base.execute("insert into link values(?)", (_digest(token),))
        return token

    def enter(self, token: str, name: str) -> str | None:
        """Use a token up; -> the secret of a session for this annotator, or None if the token is unknown or used."""
        session = secrets.token_urlsafe(32)
        with self._base() as base:
            if not base.execute("delete from link where digest = ?", (_digest(token),)).rowcount:
                return None
            base.execute("insert into session values(?, ?)", (_digest(session), name))
        return session

    def who(self, session: str) -> str | None:
        """The annotator of a session. It outlives the server."""
        with self._base() as base:
            found = base.execute("select annotator from session where digest = ?", (_digest(session),)).fetchone()
        return found[0] if found else None

    def identity(self) -> str:
        """A name of this run that no other has: browsers keep what belongs to different runs apart by it."""
        return self.fact("run") or self.fact("run", secrets.token_hex(8)) or ""

    def fact(self, name: str, value: str | None = None) -> str | None:
        """A remembered fact; None if there is none. It is set first if a value is given."""
        with self._base() as base:
            if value is not None:
                base.execute("insert or replace into fact values(?, ?)", (name, value))
            found = base.execute("select value from fact where name = ?", (name,)).fetchone()
        return found[0] if found else None

    # -- what --------------------------------------------------------------------------------------------------------------

    def _rounds(self) -> list[tuple[Path, list[dict[str, Any]], list[Annotation]]]:
        return [(folder, self._fresh(folder / "requests.jsonl", handoff.requests), self._fresh(folder / "annotations.jsonl", handoff.collected)) for folder in handoff.folders(self.run)]

    def _fresh(self, path: Path, read: Any) -> Any:
        """What the file says; read again only when it has changed (it is replaced, never written into)."""
        try:
            state = path.stat()
        except FileNotFoundError:
            return read(path.parent)
        mark = (state.st_ino, state.st_mtime_ns, state.st_size)
        if path not in self._read or self._read[path][0] != mark:
            self._read[path] = (mark, read(path.parent))
        return self._read[path][1]

    def state(self, name: str, now: float | None = None) -> dict[str, Any]:
        """What this annotator sees: the item in hand (claimed for them; None if there is none left) and how far the work is."""
        now = time.time() if now is None else now
        rounds = self._rounds()
        with self._base() as base:
            item = self._item(base, rounds, name, now)
        mine = [a for _, _, there in rounds for a in there if a.annotator == name]
        times = [a.seconds for a in mine if a.seconds > 0 and a.kind != "skip"]
        run = self.identity()
        total = sum(r["annotators"] for _, asked, _ in rounds for r in asked)
        done = sum(len(there) for _, _, there in rounds)
        undo = any(not handoff.taken(folder) for folder, _, there in rounds if any(a.annotator == name for a in there))
        return {"run": run, "name": name, "item": item, "done": done, "total": total, "mine": len(mine), "pace": median(times) if times else None, "undo": undo}

    def _item(self, base: sqlite3.Connection, rounds: list, name: str, now: float) -> dict[str, Any] | None:
        held = Counter((row[0], row[1]) for row in base.execute("select round, id from claim where annotator != ? and until > ?", (name, now)))
        written = set(base.execute("select round, id from draft where annotator = ?", (name,)))
        claim = base.execute("select round, id from claim where annotator = ?", (name,)).fetchone()
        free = []
        for _, asked, there in rounds:
            had, own = Counter(a.prompt_id for a in there), {a.prompt_id for a in there if a.annotator == name}
            free += [r for r in asked if r["id"] not in own and had[r["id"]] + held[r["round"], r["id"]] < r["annotators"]]
        if not free:
            base.execute("delete from claim where annotator = ?", (name,))
            return None
        request = min(free, key=lambda r: ((r["round"], r["id"]) != claim, (r["round"], r["id"]) not in written))  # the first of the best
        key = (request["round"], request["id"])
        base.execute("insert or replace into claim values(?, ?, ?, ?)", (name, *key, now + LEASE))
        text, seconds, edited = base.execute("select text, seconds, edited from draft where annotator = ? and round = ? and id = ?", (name, *key)).fetchone() or (None, 0.0, 0)
        if request["kind"] == "response" and text is None:
            text = "".join(request["drafts"][:1])
        order = _order(request, name)
        return {name: request[name] for name in ("id", "round", "prompt", "group", "kind")} | {"drafts": [request["drafts"][i] for i in order], "text": text or "", "seconds": seconds, "edited": edited}

    # -- work --------------------------------------------------------------------------------------------------------------

    def save(self, name: str, number: int, key: str, text: str, seconds: float, edited: int) -> None:
        """Keep a half-written response, unless a later one is kept already. `edited` is the browser's clock."""
        self._request(number, key)
        with self._base() as base:
            self._save(base, name, number, key, text, seconds, edited)
            base.execute("update claim set until = ? where annotator = ? and round = ? and id = ?", (time.time() + LEASE, name, number, key))

    @staticmethod
    def _save(base: sqlite3.Connection, name: str, number: int, key: str, text: str, seconds: float, edited: int) -> None:
        base.execute(
            "insert into draft values(?, ?, ?, ?, ?, ?) on conflict do update set text = excluded.text, seconds = excluded.seconds, edited = excluded.edited where excluded.edited >= edited",
            (name, number, key, text, seconds, edited),
        )

    def _request(self, number: int, key: str) -> tuple[Path, dict[str, Any]]:
        for folder, asked, _ in self._rounds():
            for request in asked:
                if (request["round"], request["id"]) == (number, key):
                    return folder, request
        raise DataError(f"prompt '{key}' is not asked in round {number}; load the page again")

    def submit(self, name: str, number: int, key: str, kind: str, *, text: str = "", side: int = 0, seconds: float = 0.0) -> None:
        """Keep a finished answer: `text` is the response, or the reason of a skip; `side` 0 or 1 is the preferred draft as this annotator saw
        them. The same answer again changes nothing. Refused if it does not pass; the text is kept as a draft in any case."""
        folder, request = self._request(number, key)
        if kind not in ("skip", request["kind"]):
            raise DataError(f"a {kind} where a {request['kind']} is asked; load the page again")
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        common = {"annotator": name, "seconds": seconds, "round": number, "at": at}
        if kind == "skip":
            answer = Answer(key, kind="skip", reason=text.strip(), **common)
        elif kind == "preference":
            shown = [request["drafts"][i] for i in _order(request, name)]
            answer = Answer(key, kind="preference", chosen=shown[side], rejected=shown[1 - side], **common)
        else:
            answer = Answer(key, response=text, **common)
            with self._base() as base:
                self._save(base, name, number, key, text, seconds, int(time.time() * 1000))
        verdict = handoff.collect(folder, [answer])
        if not verdict.ok:
            raise Refused(verdict.problems[0])
        with self._base() as base:
            base.execute("delete from claim where annotator = ?", (name,))

    def undo(self, name: str) -> bool:
        """Take this annotator's last answer back and put it in hand again; -> whether there was one that may be taken back."""
        for folder, _, there in reversed(self._rounds()):
            own = [a for a in there if a.annotator == name]
            if own and handoff.withdraw(folder, own[-1].prompt_id, name):
                last = own[-1]
                with self._base() as base:
                    if last.kind == "response":
                        self._save(base, name, last.round, last.prompt_id, last.response, last.seconds, int(time.time() * 1000))
                    base.execute("insert or replace into claim values(?, ?, ?, ?)", (name, last.round, last.prompt_id, time.time() + LEASE))
                return True
        return False


def _order(request: dict[str, Any], name: str) -> list[int]:
    """In which order this annotator sees two drafts: by chance, so that the left one is no favourite, and always the same."""
    order = list(range(len(request["drafts"])))
    return order[::-1] if request["kind"] == "preference" and seeds.seed(0, "side", name, request["id"]) % 2 else order
