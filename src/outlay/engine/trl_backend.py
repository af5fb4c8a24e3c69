"""TRL's SFTTrainer as a trainer: for what ours does not do, that is QLoRA, FSDP and DeepSpeed, and its kind of packing."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError, OutlayError
from ..registry import register
from ..types import Annotation, Cost, Model, Prompt
from . import trl_common
from .fit import Course
from .folders import new_folder
from .lesson import examples
from .load import hub_errors, load, quiet_peft, resolve, tokenizer_of
from .recipe import Recipe
from .render import Rendered
from .trainer import adapters_on, check_start, epoch_flops, network_of


@register("trainer", "trl")
@dataclass(frozen=True, kw_only=True)
class TRL(Recipe):
    """Fine-tune on responses with TRL's SFTTrainer (pip install 'outlay[trl]'); the same order of data, learning rates and loss as trainer sft.

    The options that sft has, too, mean the same here. With several processes `minibatch` is that of each. A killed training begins anew.

    packing: TRL puts examples end to end into rows of max_tokens tokens; a minibatch is then so many rows. quantize: "nf4" is QLoRA
    (Dettmers et al. 2023, arXiv 2305.14314): the frozen weights in four bits; needs the package bitsandbytes. accelerate_config: the
    file that `accelerate config` writes; training then runs in processes of its own, with FSDP or DeepSpeed as it says. arguments:
    handed to TRL's SFTConfig as they are.
    """

    method: Literal["lora", "full"] = "lora"
    packing: bool = False
    quantize: Literal["none", "nf4"] = "none"
    accelerate_config: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.check("trl")
        trl_common.check_arguments("trl", self, {"packing", "completion_only_loss"})
        if self.quantize != "none" and self.method == "full":
            raise ConfigError(f"trainer 'trl', option 'quantize' = '{self.quantize}' freezes the weights; use method: lora")
        if self.accelerate_config and not Path(self.accelerate_config).is_file():
            raise ConfigError(f"trainer 'trl', option 'accelerate_config': there is no file {self.accelerate_config}; write one with: accelerate config --config_file {self.accelerate_config}")

    def __call__(self, start: Model, prompts: Sequence[Prompt], annotations: Sequence[Annotation], out: Path, *, seed: int = 0) -> Model:
        """Train `start` on aligned prompts and annotations (skips are left out) and write weights as safetensors into the folder `out`.

        Raises ConfigError if TRL is not installed, DataError naming the prompt whose response is empty or would be cut off.
        """
        return self.train(start, prompts, annotations, out, seed=seed)[0]

    def train(self, start: Model, prompts: Sequence[Prompt], annotations: Sequence[Annotation], out: Path, *, seed: int = 0) -> tuple[Model, Course]:
        """As a call, with the loss of each update."""
        _check_installed(self)
        check_start(start, self.method)
        out = Path(out)
        with self.runtime.active(), new_folder(out) as folder:
            loaded = load(Model(start.base), self.runtime)
            lesson = examples(loaded, self.runtime.template, prompts, annotations, most=self.max_tokens, trainer="trl")
            begin = time.perf_counter()
            course = self._launch(start, lesson, folder, seed) if self.accelerate_config else learn(self, start, lesson, folder, seed)
            seconds = time.perf_counter() - begin
            spent = self.epochs * epoch_flops(loaded.arch, [len(e.ids) for e in lesson], [len(e.ids) - e.answer for e in lesson], self.method, trl_common.parameters(folder))
        cost = Cost(seconds=seconds, flops=spent, trained_tokens=self.epochs * sum(len(e.ids) for e in lesson))
        return Model(start.base, str(out), self.method, updates=start.updates + course.updates, cost=cost), replace(course, seconds=seconds)

    def _launch(self, start: Model, lesson: Sequence[Rendered], folder: Path, seed: int) -> Course:
        """The same in processes that accelerate starts."""
        with tempfile.TemporaryDirectory(prefix="outlay-trl-") as place:
            job = {"options": asdict(self), "start": asdict(start), "lesson": [asdict(e) for e in lesson], "folder": str(folder.resolve()), "seed": seed}
            Path(place, "job.json").write_text(json.dumps(job))
            command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(self.accelerate_config), "-m", "outlay.engine.trl_job", place]
            done = subprocess.run(command, capture_output=True, text=True)
            result = Path(place, "course.json")
            if done.returncode or not result.exists():
                lines = [line for line in done.stderr.splitlines() if "Error" in line] or done.stderr.splitlines() or ["it said nothing"]
                raise OutlayError(f"training under {self.accelerate_config} failed (exit code {done.returncode}): {lines[0].strip()}; to see all: {' '.join(command[:5])} ...")
            return Course(**json.loads(result.read_text()))


def learn(options: TRL, start: Model, lesson: Sequence[Rendered], folder: Path, seed: int) -> Course:
    """Train with TRL in this process (one of several under accelerate) and write the weights into `folder`."""
    from datasets import Dataset
    from trl import SFTTrainer

    rows = {"input_ids": [list(e.ids) for e in lesson], "completion_mask": [[int(i >= e.answer) for i in range(len(e.ids))] for e in lesson]}
    with trl_common.workplace() as scratch:
        trainer = trl_common.ordered(SFTTrainer, options, seed)(
            model=_network(options, start, seed), args=_config(options, scratch, seed), train_dataset=Dataset.from_dict(rows), processing_class=tokenizer_of(start.base)
        )
        return trl_common.trained(trainer, folder, start.base)


def _config(options: TRL, scratch: str, seed: int):
    from trl import SFTConfig

    own = {
        "packing": options.packing, "max_length": options.max_tokens if options.packing else None, "completion_only_loss": True,
        "bf16": options.runtime.dtype == "bfloat16" and (options.method == "full" or options.quantize != "none"),
    }  # fmt: skip
    return SFTConfig(**trl_common.settings(options, scratch, seed) | own | dict(options.arguments))


def _network(options: TRL, start: Model, seed: int):
    loaded = load(Model(start.base), options.runtime)
    if options.quantize == "none":
        return network_of(start, loaded, options, seed)
    import torch
    from peft import PeftModel, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    small = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=options.quantize, bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=options.runtime.torch_dtype())
    where = resolve(start.base)
    with hub_errors(where):
        network = AutoModelForCausalLM.from_pretrained(
            where, quantization_config=small, dtype=options.runtime.torch_dtype(), device_map={"": options.runtime.torch_device()}, trust_remote_code=False, use_safetensors=True
        )
    network = prepare_model_for_kbit_training(network, use_gradient_checkpointing=options.gradient_checkpointing)
    if start.weights:
        with quiet_peft(), torch.random.fork_rng():
            return PeftModel.from_pretrained(network, start.weights, is_trainable=True)
    return adapters_on(network, options, seed)


def _check_installed(options: TRL) -> None:
    trl_common.check_installed("trl", options, "SFTConfig", ", or use trainer: sft")
    if options.quantize != "none":
        try:
            import bitsandbytes  # noqa: F401
        except ImportError:
            raise ConfigError("trainer 'trl', option 'quantize' needs the package bitsandbytes; pip install bitsandbytes, or use quantize: none") from None
