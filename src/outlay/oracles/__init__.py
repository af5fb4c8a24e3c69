"""Oracles: whoever answers."""

from . import llm, replay  # noqa: F401  (registers the parts)
