"""Executors: where the stages of a study run. One method: an ordered map."""

from . import local  # noqa: F401  (registers the parts)
