"""Oracles: whoever answers."""

from . import replay  # noqa: F401  (registers the part)
