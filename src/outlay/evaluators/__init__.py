"""Benchmarks. Importing this package registers them."""

from .benchmarks import BBH, MMLU
from .draft_order import DraftOrder
from .heldout import HeldOut

__all__ = ["BBH", "MMLU", "DraftOrder", "HeldOut"]
