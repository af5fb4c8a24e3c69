"""The training loop on a random two-layer Llama: what must not change the result, and what must survive a kill."""

import sys

import numpy as np
import pytest

from outlay.engine import SFT, TRL, Runtime
from outlay.errors import ConfigError, DataError
from outlay.registry import build
from outlay.store import hash_folder
from outlay.types import Annotation, Prompt

torch = pytest.importorskip("torch")

PROMPTS = [Prompt(f"q{i}", " ".join("abcdefghijklmnop"[(7 * i + j) % 16] * (1 + (i + j) % 3) for j in range(1 + i % 9))) for i in range(12)]
ANSWERS = [Annotation(p.id, response="cab" if len(p.text) % 2 else "de") for p in PROMPTS]


def train(base, out, *, seed=1, prompts=PROMPTS, **options):
    given = {"runtime": Runtime(device="cpu"), "epochs": 2, "learning_rate": 1e-2, "minibatch": 4, "lora_r": 4} | options
    answers = [a for a in ANSWERS if a.prompt_id in {p.id for p in prompts}]
    return SFT(**given).train(base, prompts, answers, out, seed=seed)


@pytest.mark.parametrize("packed", [False, True])
def test_one_by_eight_accumulated_is_eight_at_once_though_responses_differ_in_length(random_llama, tmp_path, packed):
    at_once = train(random_llama, tmp_path / "a", minibatch=8, packed=packed)
    one_by_one = train(random_llama, tmp_path / "b", minibatch=1, accumulation=8, packed=packed)
    assert at_once[0].updates == one_by_one[0].updates == 4  # the last update of an epoch has four examples
    np.testing.assert_allclose(at_once[1].losses, one_by_one[1].losses, atol=2e-5)


@pytest.mark.parametrize("warm", [False, True])
def test_packed_examples_see_nothing_of_one_another_and_learn_the_same(random_llama, tmp_path, warm):
    start = train(random_llama, tmp_path / "start")[0] if warm else random_llama
    padded, packed = (train(start, tmp_path / str(p), packed=p) for p in (False, True))
    np.testing.assert_allclose(padded[1].losses, packed[1].losses, atol=2e-5)
    assert padded[0].cost.flops == packed[0].cost.flops


def test_packed_gradients_are_those_of_the_adapters_beside_the_matrices(random_llama):
    from outlay.engine.fit import Padded
    from outlay.engine.lesson import examples
    from outlay.engine.load import load
    from outlay.engine.packed import Packed
    from outlay.engine.trainer import network_of

    options = SFT(runtime=Runtime(device="cpu"), lora_r=4)
    loaded = load(random_llama, options.runtime)
    lesson = examples(loaded, "auto", PROMPTS, ANSWERS, most=96, trainer="sft")
    found = []
    for packed in (False, True):
        network = network_of(random_llama, loaded, options, 0)
        with torch.no_grad():
            for i, (name, p) in enumerate(network.named_parameters()):
                if "lora_B" in name:  # zero at first, and then the other half gets no gradient
                    p.copy_(torch.linspace(-0.1, 0.1, p.numel()).view_as(p) * (1 + i % 3))
        reader = Packed(network, loaded, gradient_checkpointing=False) if packed else Padded(network, autocast=False, gradient_checkpointing=False)
        for part in reader.split(lesson):
            reader.losses(part).mean().backward()
        found.append({name: p.grad for name, p in network.named_parameters() if p.requires_grad})
    assert len(found[0]) == 2 * 2 * 7
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, atol=1e-5, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("packed", [False, True])
def test_recomputed_activations_change_no_byte(random_llama, tmp_path, packed):
    kept, again = (train(random_llama, tmp_path / str(g), gradient_checkpointing=g, packed=packed, epochs=1)[0] for g in (False, True))
    assert hash_folder(tmp_path / "False") == hash_folder(tmp_path / "True") and kept.updates == again.updates


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("at", "options"),
    [(2, {}), (4, {"packed": True}), (2, {"method": "full", "learning_rate": 1e-3}), (4, {"dev_share": 0.3, "patience": 2, "epochs": 3}), (6, {"dev_share": 0.3, "patience": 2, "epochs": 3})],
    ids=str,
)
def test_killed_training_goes_on_to_the_same_bytes_without_beginning_anew(random_llama, tmp_path, monkeypatch, options, at):
    whole = train(random_llama, tmp_path / "whole", **options)[1]
    assert whole.updates > at
    clip, calls = torch.nn.utils.clip_grad_norm_, []

    def counting(*args, **more):
        calls.append(1)
        if len(calls) == at + 1:
            raise Killed
        return clip(*args, **more)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", counting)
    with pytest.raises(Killed):
        train(random_llama, tmp_path / "w", checkpoint_minutes=0, **options)
    resumed = train(random_llama, tmp_path / "w", checkpoint_minutes=0, **options)[1]
    assert hash_folder(tmp_path / "w") == hash_folder(tmp_path / "whole")
    assert (resumed.losses, resumed.dev, resumed.best) == (whole.losses, whole.dev, whole.best)
    assert len(calls) == whole.updates + 1  # only the killed update was done twice
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w", "whole"]


def test_another_trainings_checkpoint_is_not_gone_on_from(random_llama, tmp_path, monkeypatch):
    monkeypatch.setattr("outlay.engine.fit.Checkpoint.drop", lambda self: None)
    train(random_llama, tmp_path / "w", checkpoint_minutes=0)
    assert (tmp_path / ".w.checkpoint.safetensors").exists()
    (tmp_path / "w").rename(tmp_path / "other seed")
    assert train(random_llama, tmp_path / "w", seed=2)[1].losses == train(random_llama, tmp_path / "fresh", seed=2)[1].losses


def test_early_stopping_keeps_the_weights_of_the_best_epoch(random_llama, tmp_path):
    given = {"dev_share": 0.3, "learning_rate": 0.1, "decay": "none", "warmup_share": 0.0}
    model, course = train(random_llama, tmp_path / "stopped", epochs=30, **given)
    assert len(course.dev) < 30 and course.best == int(np.argmin(course.dev)) < len(course.dev) - 1
    assert course.updates == model.updates == len(course.losses)
    train(random_llama, tmp_path / "no longer than that", epochs=course.best + 1, **given)
    assert hash_folder(tmp_path / "stopped") == hash_folder(tmp_path / "no longer than that")


def test_dev_prompts_are_never_trained_on_and_stay_dev_when_more_are_bought(random_llama):
    from outlay.engine.lesson import examples, held_out
    from outlay.engine.load import load

    loaded = load(random_llama, Runtime(device="cpu"))
    answered_twice = [*ANSWERS, *[Annotation(a.prompt_id, response="b") for a in ANSWERS]]
    whole = examples(loaded, "auto", [*PROMPTS, *PROMPTS], answered_twice, most=96, trainer="sft")
    lesson, dev = held_out(whole, 0.5, 0)
    assert {e.id for e in lesson} & {e.id for e in dev} == set() and len(lesson) + len(dev) == 24
    _, early = held_out(whole[:12], 0.5, 0)
    assert {e.id for e in early} <= {e.id for e in dev} and len(early) < len(dev)
    with pytest.raises(DataError, match="dev_share: 0"):
        held_out(whole[:1], 0.4, 1)


def test_buckets_keep_every_example_once_and_pad_less():
    from outlay.engine.lesson import minibatches

    lengths = [5 + (37 * i) % 90 for i in range(50)]

    def padding(bucket):
        batches = list(minibatches(lengths, 4, epoch=1, seed=2, bucket=bucket))
        assert sorted(row for rows in batches for row in rows) == list(range(50))
        return sum(max(lengths[row] for row in rows) * len(rows) for rows in batches)

    assert padding(13) < padding(4) < padding(1)


@pytest.mark.parametrize(("decay", "last"), [("linear", 1 / 8), ("cosine", 0.5 - 0.5 * np.cos(np.pi / 8)), ("none", 1.0)])
def test_rate_rises_to_the_peak_and_decays(decay, last):
    from outlay.engine.fit import rate

    share = [rate(10, 0.2, decay)(u) for u in range(10)]
    assert share[:3] == pytest.approx([1 / 3, 2 / 3, 1.0]) and share[-1] == pytest.approx(last)
    assert sorted(share[2:], reverse=True) == share[2:]


def test_wrong_options_are_named(tmp_path):
    for options, said in [
        ({"accumulate": 2}, "accumulation"), ({"dev_share": 1.0}, "dev_share"), ({"patience": 0}, "patience"), ({"accumulation": 0}, "accumulation"),
        ({"packed": True, "method": "full"}, "packed"), ({"checkpoint_minutes": -1}, "checkpoint_minutes"), ({"decay": "poly"}, "decay"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            build("trainer", {"use": "sft", **options})
    for options, said in [
        ({"quantise": "nf4"}, "quantize"), ({"arguments": {"learning_rate": 1}}, "learning_rate"), ({"quantize": "nf4", "method": "full"}, "quantize"),
        ({"accelerate_config": str(tmp_path / "none.yaml")}, "accelerate config"), ({"minibatch": 0}, "minibatch"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            build("trainer", {"use": "trl", **options})


def test_packed_refuses_bfloat16_and_adapters_on_the_head(random_llama, tmp_path):
    with pytest.raises(ConfigError, match="float32"):
        train(random_llama, tmp_path / "w", packed=True, runtime=Runtime(device="cpu", dtype="bfloat16"))
    with pytest.raises(ConfigError, match="all-linear"):
        train(random_llama, tmp_path / "w", packed=True, lora_targets=("q_proj", "lm_head"))
    assert list(tmp_path.iterdir()) == []


def test_absent_trl_says_what_to_install(random_llama, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ConfigError, match=r"pip install 'outlay\[trl\]'"):
        TRL()(random_llama, PROMPTS, ANSWERS, tmp_path / "w")


def test_campaign_keeps_the_checkpoint_of_a_killed_training(toy_study, tmp_path, monkeypatch):
    """The stage's folder is cleared of half-written weights, and of nothing that a trainer goes on from."""
    from outlay.study import run_study
    from outlay.toy import ToyTrainer

    seen = []
    call = ToyTrainer.__call__

    def dying(self, start, prompts, annotations, out, **more):
        mark = out.with_name(".mark")
        seen.append(mark.exists())
        if not mark.exists():
            out.mkdir(parents=True)
            mark.write_text("")
            raise Killed
        return call(self, start, prompts, annotations, out, **more)

    monkeypatch.setattr(ToyTrainer, "__call__", dying)
    config = toy_study(strategies=["random"], rounds=[1], starts=["cold"], reference_curve=False)
    with pytest.raises(Killed):
        run_study(config, tmp_path / "run", quiet=True)
    run_study(config, tmp_path / "run", quiet=True)
    assert seen == [False, True] and not list((tmp_path / "run").rglob(".mark"))


def test_model_of_another_build_is_told_to_leave_packed_out(random_llama, tmp_path, monkeypatch):
    monkeypatch.setattr("outlay.engine.packed.weights_of", lambda model: None)
    with pytest.raises(ConfigError, match="Llama's build"):
        train(random_llama, tmp_path / "w", packed=True)
