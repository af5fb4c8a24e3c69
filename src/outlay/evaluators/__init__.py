"""Benchmarks. Importing this package registers them."""

from .heldout import HeldOut

__all__ = ["HeldOut"]
