"""Outlay: how to spend a fixed annotation budget when an LLM is fine-tuned."""

from .acquisition.alone import Selected, select
from .errors import AwaitingAnnotations, ConfigError, DataError, OutlayError, RunConflict
from .registry import register, strategy
from .types import Annotation, Batch, Cost, Evaluation, Model, Pool, Prompt, Request, Round, Selection, Signals, View

__version__ = "0.1.0"
__all__ = [
    "Annotation", "AwaitingAnnotations", "Batch", "ConfigError", "Cost", "DataError", "Evaluation", "Model", "OutlayError", "Pool",
    "Prompt", "Request", "Round", "RunConflict", "Selected", "Selection", "Signals", "View", "register", "select", "strategy",
]
