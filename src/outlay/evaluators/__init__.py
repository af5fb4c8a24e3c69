"""Benchmarks. Importing this package registers them."""

from .benchmarks import BBH, MMLU
from .heldout import HeldOut

__all__ = ["BBH", "MMLU", "HeldOut"]
