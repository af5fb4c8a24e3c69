"""Oracles: whoever answers."""

from . import human, noisy, replay  # noqa: F401  (registers the parts)
