"""runtime.minibatch: auto is arithmetic on sizes, done once and kept."""

from pathlib import Path

import numpy as np
import pytest

from outlay import study
from outlay.engine import Runtime, memory
from outlay.errors import ConfigError
from outlay.store import Store
from outlay.types import Signals

torch = pytest.importorskip("torch")

CPU, TEXTS = Runtime(device="cpu"), ["add 3 4", "reverse a b c d e f g h"]


def fits(gib, new=16, workers=1, monkeypatch=None, **options):
    monkeypatch.setattr(memory, "device_memory", lambda device: int(gib * 2**30))
    return memory.minibatch("tiny", CPU, TEXTS, new=new, workers=workers, **options)


def test_less_memory_longer_texts_and_more_workers_make_it_smaller_in_powers_of_two(monkeypatch):
    sizes = [fits(gib, monkeypatch=monkeypatch) for gib in (64, 0.12, 0.06)]
    assert sizes[0] == memory.MOST["cpu"] and sizes[0] > sizes[1] > sizes[2] >= 1
    assert all(size & (size - 1) == 0 for size in sizes)
    assert fits(0.12, new=120, monkeypatch=monkeypatch) < sizes[1]
    assert fits(0.12, least=400, monkeypatch=monkeypatch) < sizes[1]
    assert fits(0.24, workers=2, monkeypatch=monkeypatch) <= sizes[1]


def test_too_little_memory_for_one_prompt_says_what_is_missing(monkeypatch):
    with pytest.raises(ConfigError, match=r"needs .* GiB .*set runtime\.minibatch"):
        fits(0.001, monkeypatch=monkeypatch)


def test_a_study_finds_it_once_and_keeps_it(tmp_path, monkeypatch):
    from outlay.config import load

    where = tmp_path / "run"
    asked = load(
        Path(__file__).parents[1] / "configs/quickstart.yaml",
        ["runtime.minibatch=auto", "pool.size=8", "pool_per_seed=8", "budgets=[2]", "strategies=[random]", "rounds=[1]", "seeds=1", "trainer.epochs=1",
         "evaluators={like_pool: {use: heldout, max_new_tokens: 4, source: {use: skills, split: test, size: 4}}}", "random_sets=2", "executor=serial"],
    )  # fmt: skip
    study.run_study(asked, where, quiet=True)
    found = Store(where).read("study.json", dict)["config"]["runtime"]["minibatch"]
    assert found == memory.MOST["cpu"]
    monkeypatch.setattr(memory, "device_memory", lambda device: 2**27)  # another machine goes on
    study.run_study(asked, where, quiet=True)
    assert Store(where).read("study.json", dict)["config"]["runtime"]["minibatch"] == found
    assert np.isfinite(Store(where).read("shared/signals-0/shard-00000.parquet", Signals).columns["embedding"]).all()
