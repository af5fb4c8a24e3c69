"""The LLM: load, render, generate and score in one pass, train. torch and transformers are imported inside functions only."""

from .dpo import DPO
from .runtime import Runtime
from .scorer import LLMScorer
from .trainer import SFT
from .trl_backend import TRL

__all__ = ["DPO", "SFT", "TRL", "LLMScorer", "Runtime"]
