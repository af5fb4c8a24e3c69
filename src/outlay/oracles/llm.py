"""An LLM as the annotator, behind any OpenAI-compatible endpoint, under a hard cap in money and tokens.

Before a request is sent, the most that it can cost is set aside and written to the journal; afterwards the journal gets what it did cost,
with the answer. So the cap holds whatever fails, and a campaign that was killed takes the answers that it has from the journal.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .. import seeds
from ..errors import CapReached, ConfigError, DataError
from ..registry import register
from ..types import Annotation, Batch, Cost, Prompt, Request
from . import journal as journals
from .chat import Failed, Reply, complete

OVERHEAD = 64  # tokens of a chat template, at most
LONGEST_WAIT = 600.0  # seconds; a server that asks for more is not waited for


@register("oracle", "llm")
@dataclass(frozen=True, kw_only=True)
class LLM:
    """Answers from a model behind an OpenAI-compatible endpoint, e.g. base_url "https://api.openai.com/v1" or "http://127.0.0.1:8000/v1".

    key_env names the environment variable that holds the key ("" for a server that needs none); the key is in no file. system: the system
    turn. workers: requests at once. per_minute: at most so many are begun in a minute (0: no limit). timeout: seconds for a whole reply.
    attempts: how often a request is tried. usd_in, usd_out: dollars for a million tokens. max_usd, max_total_tokens: hard caps over the
    campaign. A response that is cut off, empty or withheld becomes a skip.
    """

    journal: Path
    base_url: str
    model: str
    key_env: str = "OPENAI_API_KEY"
    system: str = ""
    max_tokens: int = 1024
    temperature: float = 0.0
    workers: int = 4
    per_minute: int = 0
    timeout: float = 120.0
    attempts: int = 6
    usd_in: float = 0.0
    usd_out: float = 0.0
    max_usd: float | None = None
    max_total_tokens: int | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ConfigError(f"oracle 'llm', option 'base_url' = {self.base_url!r}: an http or https address is expected, without a password in it")
        if self.key_env and parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise ConfigError(f"oracle 'llm': the key would go to {self.base_url} unencrypted; use https, or key_env: '' for a server that needs none")
        for name in ("max_tokens", "workers", "timeout", "attempts"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"oracle 'llm', option '{name}' = {getattr(self, name)}: it must be above 0")
        if self.max_usd is not None and not (self.usd_in > 0 and self.usd_out > 0):
            raise ConfigError("oracle 'llm': max_usd is a cap only with prices; set usd_in and usd_out, in dollars for a million tokens")

    def __call__(self, requests: Sequence[Request]) -> Batch:
        """One annotation a request, in their order: what the journal has is not asked again. CapReached before a cap would be passed;
        ConfigError without a key; DataError where the endpoint fails for good. What was paid until then is kept."""
        key = os.environ.get(self.key_env) if self.key_env else None
        if self.key_env and not key:
            raise ConfigError(f"oracle 'llm': the environment variable {self.key_env} is not set; put the key there, or set key_env: '' for a server that needs none")
        purse = _Purse(self)
        wanted = [r.prompt for r in {r.prompt.id: r for r in requests}.values() if r.prompt.id not in purse.answers]
        with ThreadPoolExecutor(self.workers) as pool:
            jobs = [pool.submit(self._ask, prompt, key, purse) for prompt in wanted]
            try:
                wait(jobs, return_when=FIRST_EXCEPTION)
            finally:  # also when interrupted: requests under way are waited for and kept, no other is begun
                purse.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
        failed = [job for job in jobs if not job.cancelled() and job.exception()]
        if failed:  # a fault outranks a cap, and a job that merely stopped says nothing
            raise min((job.exception() for job in failed), key=lambda bad: (isinstance(bad, _Stopped), isinstance(bad, CapReached)))
        mine = [purse.answers[r.prompt.id] for r in requests]
        annotations = tuple(
            Annotation(a["id"], "skip" if a["reason"] else "response", response="" if a["reason"] else a["response"], annotator=self.model, seconds=a["seconds"], usd=a["usd"]) for a in mine
        )
        return Batch(annotations, Cost(labels=sum(a.kind != "skip" for a in annotations), usd=purse.usd_of({r.prompt.id for r in requests})))

    def _ask(self, prompt: Prompt, key: str | None, purse: _Purse) -> None:
        turns = ([{"role": "system", "content": self.system}] if self.system else []) + [{"role": "user", "content": prompt.text}]
        body = {"model": self.model, "messages": turns, "max_tokens": self.max_tokens, "temperature": self.temperature}
        most = sum(len(turn["content"].encode()) for turn in turns) + OVERHEAD  # no tokenizer makes more tokens than there are bytes
        for attempt in range(self.attempts):
            purse.turn()
            purse.reserve(prompt.id, most)
            begin = time.monotonic()
            try:
                reply = complete(self.base_url.rstrip("/") + "/chat/completions", key, body, self.timeout)
            except Failed as bad:
                purse.failed(prompt.id, str(bad), paid=bad.paid)
                last = bad
            except (ConfigError, DataError):
                purse.failed(prompt.id, "refused", paid=False)
                raise
            else:
                purse.bought(prompt.id, reply, time.monotonic() - begin)
                return
            if last.wait > LONGEST_WAIT:
                raise DataError(f"{self.base_url} asks to wait for {last.wait:.0f} s ({last}); run the same command again later, nothing is lost")
            back_off = min(60.0, 2.0**attempt) * (0.5 + 0.5 * seeds.generator(0, "back off", prompt.id, attempt).random())
            if attempt + 1 < self.attempts:
                purse.pause(last.wait, back_off)
        raise DataError(f"prompt '{prompt.id}': {self.base_url} failed {self.attempts} times, the last time with: {last}; run the same command again later, nothing is lost")


class _Stopped(Exception):
    """Another job failed: this one gave up in between two attempts."""


@dataclass
class _Purse:
    """What was spent, what is set aside, and the journal of both; shared by the threads."""

    oracle: LLM
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    spent: dict[str, list[float]] = field(default_factory=dict)  # id -> dollars, tokens; the most it can be where it is not known
    aside: dict[str, tuple[float, int]] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Condition = field(default_factory=threading.Condition)
    quiet: float = 0.0  # until when nobody asks, because the server said so
    starts: float = 0.0  # when the next request may begin

    def __post_init__(self) -> None:
        with self.lock:
            self._recall()

    def _recall(self) -> None:
        for row in journals.rows(self.oracle.journal):
            try:
                if row["state"] == "asked":
                    self._settle(row["id"])  # an attempt whose end is not in the journal: it may be on the bill
                    self.aside[row["id"]] = (row["usd"], row["tokens"])
                elif row["state"] in ("answered", "failed"):
                    self._settle(row["id"], row["usd"], row["tokens"])
                    if row["state"] == "answered":
                        self.answers[row["id"]] = row
            except KeyError as missing:
                raise journals.damaged(self.oracle.journal, f"a line without {missing}") from None
        for key in list(self.aside):
            self._settle(key)

    def _settle(self, key: str, usd: float | None = None, tokens: int | None = None) -> None:
        """Book what was set aside, at its price if that is known."""
        most = self.aside.pop(key, (0.0, 0))
        have = self.spent.setdefault(key, [0.0, 0])
        have[0] += most[0] if usd is None else usd
        have[1] += most[1] if tokens is None else tokens
        self.lock.notify_all()

    def usd_of(self, keys: set[str]) -> float:
        """Dollars spent on these prompts, failed attempts among them."""
        return sum(self.spent.get(key, [0.0])[0] for key in keys)

    def turn(self) -> None:
        """Wait until a request may begin. _Stopped if the work has ended."""
        with self.lock:
            now = time.monotonic()
            begin = max(now, self.starts, self.quiet)
            self.starts = begin + (60.0 / self.oracle.per_minute if self.oracle.per_minute else 0.0)
        self._sleep(begin - now)

    def pause(self, asked: float, own: float) -> None:
        """Back off; what the server asked for holds for everybody."""
        with self.lock:
            self.quiet = max(self.quiet, time.monotonic() + asked) if asked else self.quiet
        self._sleep(max(asked, own))

    def _sleep(self, seconds: float) -> None:
        if self.stop.wait(max(0.0, seconds)):
            raise _Stopped

    def reserve(self, key: str, prompt_tokens: int) -> None:
        """Set the most aside that an attempt can cost. CapReached if that would pass a cap."""
        oracle = self.oracle
        tokens = prompt_tokens + oracle.max_tokens
        usd = (prompt_tokens * oracle.usd_in + oracle.max_tokens * oracle.usd_out) / 1e6
        with self.lock:
            while why := self._over(usd, tokens):
                if not self.aside:
                    raise CapReached(f"oracle 'llm': {why}. What was answered is kept; raise the cap and run the same command to go on")
                self.lock.wait(1.0)  # a request under way may cost less than was set aside for it
                if self.stop.is_set():
                    raise _Stopped
            self.aside[key] = (usd, tokens)
            journals.append(oracle.journal, [{"id": key, "state": "asked", "usd": usd, "tokens": tokens}])

    def _over(self, usd: float, tokens: int) -> str:
        """Which cap a request of this price would pass, with the requests under way at their dearest; empty if none."""
        for at, name, cap, ahead in ((0, "max_usd", self.oracle.max_usd, usd), (1, "max_total_tokens", self.oracle.max_total_tokens, tokens)):
            used = sum(have[at] for have in self.spent.values()) + sum(most[at] for most in self.aside.values())
            if cap is not None and used + ahead > cap:
                return f"{used:.4g} are spent, and the next request may cost {ahead:.4g}; {name} is {cap:g}"
        return ""

    def failed(self, key: str, why: str, *, paid: bool) -> None:
        """An attempt without an answer: at the most it can have cost if it may be on the bill, else at nothing."""
        with self.lock:
            usd, tokens = self.aside[key] if paid else (0.0, 0)
            journals.append(self.oracle.journal, [{"id": key, "state": "failed", "why": why, "usd": usd, "tokens": tokens}])
            self._settle(key, usd, tokens)

    def bought(self, key: str, reply: Reply, seconds: float) -> None:
        """An answer, at its price; at the most it can have cost where the server does not count."""
        oracle = self.oracle
        with self.lock:
            usd, tokens = self.aside[key]
            if reply.prompt_tokens >= 0 and reply.completion_tokens >= 0:
                tokens = reply.prompt_tokens + reply.completion_tokens
                usd = (reply.prompt_tokens * oracle.usd_in + reply.completion_tokens * oracle.usd_out) / 1e6
            row = {"id": key, "state": "answered", "response": reply.text, "reason": _unfit(reply), "usd": usd, "tokens": tokens, "seconds": round(seconds, 3)}
            journals.append(oracle.journal, [row])
            self._settle(key, usd, tokens)
            self.answers[key] = row


def _unfit(reply: Reply) -> str:
    """Why a reply is no response to train on; empty if it is one."""
    if reply.ending == "length":
        return "cut off at max_tokens"
    if reply.ending == "content_filter":
        return "withheld by a filter"
    return "" if reply.text.strip() else "empty"
