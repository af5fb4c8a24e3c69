"""Oracles: whoever answers."""

from . import human, llm, noisy, replay  # noqa: F401  (registers the parts)
