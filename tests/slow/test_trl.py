"""TRL's SFTTrainer beside ours on the shipped tiny model: the same data in the same order, so the same losses. About two minutes."""

import importlib.util
import random

import numpy as np
import pytest

from outlay.engine import SFT, TRL, Runtime
from outlay.errors import ConfigError, DataError
from outlay.pools.procedural import Skills
from outlay.types import Annotation, Model, Prompt

pytestmark = [pytest.mark.slow, pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs trl")]

TABLE = Skills(size=36)().to_pylist()  # 36 examples: the last minibatch of an epoch has four
PROMPTS = [Prompt(row["id"], row["text"]) for row in TABLE]
ANSWERS = [Annotation(row["id"], response=row["response"]) for row in TABLE]
TINY = Model("tiny")


def train(kind, out, *, start=TINY, **options):
    given = {"runtime": Runtime(device="cpu"), "epochs": 2, "learning_rate": 2e-3} | options
    return kind(**given).train(start, PROMPTS, ANSWERS, out, seed=3)


@pytest.mark.parametrize(
    "options",
    [{}, {"minibatch": 2, "accumulation": 4}, {"method": "full", "learning_rate": 2e-4}, {"decay": "cosine", "warmup_share": 0.3, "clip": 0.1}, {"gradient_checkpointing": True}],
    ids=str,
)
def test_both_trainers_have_the_same_losses_update_by_update(tmp_path, options):
    (ours, course), (theirs, other) = (train(kind, tmp_path / kind.__name__, **options) for kind in (SFT, TRL))
    np.testing.assert_allclose(course.losses, other.losses, atol=2e-4)
    assert len(course.losses) == 10 and (ours.updates, ours.kind) == (theirs.updates, theirs.kind)
    assert (ours.cost.flops, ours.cost.trained_tokens) == (theirs.cost.flops, theirs.cost.trained_tokens)


def test_packed_rows_of_trl_give_the_loss_of_the_same_examples(tmp_path):
    ours = train(SFT, tmp_path / "ours", minibatch=64)[1]
    packed = train(TRL, tmp_path / "packed", minibatch=1, packing=True, max_tokens=4000)[1]
    np.testing.assert_allclose(ours.losses, packed.losses, atol=2e-4)


def test_each_goes_on_from_the_others_adapters(tmp_path):
    first = train(TRL, tmp_path / "first", epochs=1)[0]
    ours, theirs = (train(kind, tmp_path / kind.__name__, start=first, epochs=1)[1] for kind in (SFT, TRL))
    np.testing.assert_allclose(ours.losses, theirs.losses, atol=2e-4)
    assert ours.losses[0] < train(SFT, tmp_path / "cold", epochs=1)[1].losses[0]


def test_trl_leaves_the_global_generators_alone(tmp_path):
    torch = pytest.importorskip("torch")
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state().clone()
    train(TRL, tmp_path / "w", epochs=1)
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[2])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


def test_trl_never_cuts_a_response_off(tmp_path):
    with pytest.raises(DataError, match="would be cut off at 20"):
        train(TRL, tmp_path / "w", max_tokens=20)
    assert not (tmp_path / "w").exists()


def test_misspelt_argument_of_trl_names_the_near_one(tmp_path):
    with pytest.raises(ConfigError, match="optim_args"):
        train(TRL, tmp_path / "w", arguments={"optim_arg": "x"})


def test_processes_of_accelerate_give_the_same_losses(tmp_path):
    config = tmp_path / "accelerate.yaml"
    config.write_text("compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nnum_processes: 1\nnum_machines: 1\nmachine_rank: 0\nuse_cpu: true\nmixed_precision: 'no'\n")
    ours, theirs = train(SFT, tmp_path / "ours")[1], train(TRL, tmp_path / "theirs", accelerate_config=str(config))[1]
    np.testing.assert_allclose(ours.losses, theirs.losses, atol=2e-4)
