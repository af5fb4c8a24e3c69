"""Executors: where the stages of a study run. One method: an ordered map."""

from . import local, ray  # noqa: F401  (registers the parts; no Ray is imported)
