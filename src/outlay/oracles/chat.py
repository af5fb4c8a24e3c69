"""One request to an OpenAI-compatible endpoint: its time limit, its reply, and what a failure means. Standard library only."""

from __future__ import annotations

import datetime
import email.utils
import http.client
import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, DataError

LARGEST = 16 * 2**20  # bytes of a reply
AGAIN = frozenset({408, 409, 425, 429})


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the text, why it ended, and the tokens that were counted."""

    text: str
    ending: str
    prompt_tokens: int
    completion_tokens: int


class Failed(Exception):
    """An attempt that may be repeated. `paid`: it may be on the bill though nothing came back; `wait`: seconds that the server asked for."""

    def __init__(self, why: str, *, paid: bool, wait: float = 0.0) -> None:
        super().__init__(why)
        self.paid, self.wait = paid, wait


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None  # the key would go to a place that nobody named


OPENER = urllib.request.build_opener(_NoRedirect)


def complete(url: str, key: str | None, body: dict[str, Any], timeout: float) -> Reply:
    """POST a chat completion; all of the reply within `timeout` seconds. Failed where another attempt may help; ConfigError or DataError,
    with the server's words, where none will."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers, method="POST")
    deadline = time.monotonic() + timeout
    try:
        with OPENER.open(request, timeout=timeout) as answer:
            raw = _all(answer, deadline)
    except urllib.error.HTTPError as bad:
        with bad:
            raise _refusal(url, bad) from None
    except (http.client.HTTPException, OSError) as bad:  # URLError, timeouts, resets, a reply cut off
        never = isinstance(bad, urllib.error.URLError) and isinstance(bad.reason, ConnectionRefusedError | socket.gaierror | ssl.SSLCertVerificationError)
        raise Failed(f"{type(bad).__name__}: {bad}", paid=not never) from None
    return _reply(raw)


def _all(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    """The body. A server that drips a byte now and then does not get round the time limit."""
    parts: list[bytes] = []
    size, length = 0, answer.length
    while part := answer.read1(65536):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError("the reply did not end in time")
        if size > LARGEST:
            raise http.client.HTTPException(f"a reply of more than {LARGEST} bytes")
    if length is not None and size < length:
        raise http.client.IncompleteRead(b"", length - size)
    return b"".join(parts)


def _refusal(url: str, bad: urllib.error.HTTPError) -> Exception:
    try:
        said = " ".join(bad.read(2000).decode(errors="replace").split())[:300]
    except (OSError, http.client.HTTPException):
        said = ""
    if bad.code in AGAIN or bad.code >= 500:
        return Failed(f"HTTP {bad.code} {said}", paid=bad.code == 408, wait=_asked_wait(bad.headers.get("Retry-After")))
    if bad.code in (401, 403):
        return ConfigError(f"{url} refuses the key (HTTP {bad.code}): {said}; check the environment variable that key_env names")
    return DataError(f"{url} refuses the request (HTTP {bad.code}): {said}; check base_url, model and options")


def _asked_wait(value: str | None) -> float:
    """Seconds of a Retry-After header: a number, or a date."""
    if not value:
        return 0.0
    try:
        wait = float(value)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return 0.0
        now = datetime.datetime.now(date.tzinfo or datetime.UTC)
        wait = (date - now.replace(tzinfo=date.tzinfo)).total_seconds()
    return wait if 0 < wait < float("inf") else 0.0


def _reply(raw: bytes) -> Reply:
    try:
        said = json.loads(raw)
        choice, usage = said["choices"][0], said.get("usage") or {}
        text = choice["message"].get("content")
        counts = (usage.get("prompt_tokens", -1), usage.get("completion_tokens", -1))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as bad:
        raise Failed(f"not a chat completion ({type(bad).__name__}: {str(bad)[:100]})", paid=True) from None
    if not isinstance(text, str | None) or not all(isinstance(n, int) for n in counts):
        raise Failed("not a chat completion (content or usage of a wrong type)", paid=True)
    if any("\ud800" <= c <= "\udfff" for c in text or ""):
        raise Failed("half of a surrogate pair in the response", paid=True)
    return Reply(text or "", str(choice.get("finish_reason") or ""), *counts)
