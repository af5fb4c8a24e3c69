"""Errors that users see: what happened, where, and what to do about it. The CLI prints them without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OutlayError(Exception):
    """Something the user can mend. The message is one line and names the fix."""


class ConfigError(OutlayError):
    """The config asks for something that does not exist or does not fit."""


class DataError(OutlayError):
    """A pool, a test file, an annotation or a stored stage is malformed."""


class RunConflict(OutlayError):
    """The run directory is in use, or belongs to another config."""


class AwaitingAnnotations(OutlayError):
    """People have to answer first; the same command continues after the import (exit code 3)."""


class CapReached(OutlayError):
    """The study has spent what its config allows; the same command goes on with a higher cap (exit code 4)."""


def near(name: str, known: Iterable[str]) -> str:
    """The tail of an error about an unknown name: the near match if there is one, else all known names."""
    known = sorted(known)
    match = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{match[0]}'?" if match else "known: " + ", ".join(known)
