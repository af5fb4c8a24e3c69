"""The evaluation command: a model on a benchmark, into files that can be resumed, read and scored again."""

from .config import EvalConfig, load
from .run import evaluate

__all__ = ["EvalConfig", "evaluate", "load"]
