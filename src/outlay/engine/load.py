"""Model addresses -> models in memory."""

from __future__ import annotations

import copy
import functools
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, DataError, near
from ..measure.flops import Arch
from ..store import hash_folder
from ..types import Model
from . import shipped
from .runtime import Runtime

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to run, in eval mode. `context`: the most tokens it can read. Never change its weights: it is shared."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    arch: Arch
    context: int


# The most recent base and the most recent trained model, each with the key it was loaded under.
_RECENT: dict[str, tuple[tuple, Loaded]] = {}


def resolve(name: str) -> str:
    """A base's name -> the folder of its weights, or a hub id. Raises ConfigError for a folder that cannot be a model."""
    if name == "tiny":
        return str(_checked(shipped.tiny()))
    if name == "smollm2":
        return str(_checked(shipped.smollm2()))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(_checked(folder.resolve()))
    if not HUB_ID.fullmatch(name) or name.startswith("."):
        raise ConfigError(f"model folder {folder} does not exist; give a folder, a hub id (owner/name), or one of {', '.join(shipped.NAMES)}")
    return name


def digest(name: str) -> str:
    """Hash of the base's files where they lie in a folder; its hub id otherwise."""
    where = resolve(name)
    return hash_folder(Path(where)) if Path(where).is_dir() else where


def _checked(folder: Path) -> Path:
    if not (folder / "config.json").exists():
        extra = "; it holds a LoRA adapter, which is no base: give the model it was trained from" if (folder / "adapter_config.json").exists() else ""
        raise ConfigError(f"model folder {folder} has no config.json{extra or '; save the model there with save_pretrained'}")
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(f"model folder {folder} has no weights (*.safetensors); save the model there with save_pretrained")
    return folder


def arch(name: str) -> Arch:
    """The sizes of a base, without loading its weights."""
    return _arch(resolve(name))


@functools.lru_cache(maxsize=8)
def _arch(where: str) -> Arch:
    if Path(where).is_dir():
        return Arch.from_config(json.loads(Path(where, "config.json").read_text()))
    from transformers import AutoConfig

    with hub_errors(where):
        return Arch.from_config(AutoConfig.from_pretrained(where, trust_remote_code=False).to_dict())


def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a base."""
    return _tokenizer(resolve(name))


@functools.lru_cache(maxsize=4)
def _tokenizer(where: str) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    with hub_errors(where):
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ConfigError(f"the tokenizer of {where} has no fast version (tokenizer.json), so tokens cannot be traced to the text; convert it first")
    return tokenizer


def load(model: Model, runtime: Runtime) -> Loaded:
    """The model at this address. LoRA adapters are merged into a copy of the base: the copy costs the base's memory again."""
    if model.kind == "base":
        return _base(model.base, runtime)
    folder = weights_folder(model)
    key = (model.kind, model.base, str(folder), _stamp(folder), runtime.dtype, runtime.torch_device())
    if _RECENT.get("trained", (None,))[0] != key:
        _RECENT.pop("trained", None)
        network = _network(str(folder), runtime) if model.kind == "full" else adapted(model, runtime).merge_and_unload()
        _RECENT["trained"] = key, _loaded(network.eval(), model.base)
    return _RECENT["trained"][1]


def adapted(model: Model, runtime: Runtime, *, trainable: bool = False):
    """A PeftModel: the adapter of a "lora" model on its own copy of the base."""
    from peft import PeftModel

    network = copy.deepcopy(_base(model.base, runtime).model)
    with quiet_peft():
        return PeftModel.from_pretrained(network, str(weights_folder(model)), is_trainable=trainable).eval()


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without the warning that peft uses a name which transformers will rename: nothing that a user could mend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def weights_folder(model: Model) -> Path:
    """The folder of a trained model's weights. Raises DataError if it does not hold what `kind` says."""
    folder = Path(model.weights or "")
    config = "adapter_config.json" if model.kind == "lora" else "config.json"
    if not model.weights or not (folder / config).exists() or not any(folder.glob("*.safetensors")):
        raise DataError(f"weights folder {model.weights!r} of a '{model.kind}' model lacks {config} or *.safetensors; train it again")
    return folder


def _base(name: str, runtime: Runtime) -> Loaded:
    where = resolve(name)
    key = (where, _stamp(Path(where)), runtime.dtype, runtime.torch_device())
    if _RECENT.get("base", (None,))[0] != key:
        _RECENT.pop("base", None)  # before loading: two bases may not fit into memory
        _RECENT["base"] = key, _loaded(_network(where, runtime), name)
    return _RECENT["base"][1]


def _loaded(network: PreTrainedModel, name: str) -> Loaded:
    context = getattr(network.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    return Loaded(network, tokenizer_of(name), Arch.from_config(network.config.to_dict()), context)


def _network(where: str, runtime: Runtime) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    with hub_errors(where), no_progress_bar():
        network = AutoModelForCausalLM.from_pretrained(where, dtype=runtime.torch_dtype(), trust_remote_code=False, use_safetensors=True)
    return network.to(runtime.torch_device()).eval()


def _stamp(folder: Path) -> tuple:
    """Changes when the weights in a folder change; () for a hub id."""
    return tuple((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in sorted(folder.glob("*.safetensors"))) if folder.is_dir() else ()


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Within the block transformers draws no bars for reading and writing weights."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def hub_errors(where: str) -> Iterator[None]:
    """Turn transformers' errors into one line that says what to do."""
    try:
        yield
    except (OSError, ValueError) as error:
        if Path(where).is_dir():
            raise ConfigError(f"model folder {where} cannot be loaded: {_first_line(error)}") from error
        # transformers wraps the hub's own error, whose type says what happened.
        chain = [type(e).__name__ for e in _causes(error)]
        if "GatedRepoError" in chain or "gated repo" in str(error):
            advice = f"its licence must be accepted first: open https://huggingface.co/{where}, accept it, then run: hf auth login"
        elif "RepositoryNotFoundError" in chain or "is not a valid model identifier" in str(error):
            advice = f"there is no such folder and no such public model on the hub; {near(where, shipped.NAMES)}"
        else:
            advice = f"the hub cannot be reached ({_first_line(error)}); download the model elsewhere and give its folder, or take a shipped one: {near(where, shipped.NAMES)}"
        raise ConfigError(f"model '{where}': {advice}") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
