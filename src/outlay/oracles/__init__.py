"""Oracles: whoever answers."""

from . import human, judge, llm, mixed, noisy, replay  # noqa: F401  (registers the parts)
