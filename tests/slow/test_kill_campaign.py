"""`outlay campaign next` and `import` may be killed at any moment, and two of them never work at once."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from outlay import registry
from outlay.oracles import handoff

pytestmark = pytest.mark.slow

POOL = {"use": "skills", "size": 120}
CONFIG = {
    "name": "killed", "model": "tiny", "scorer": {"use": "llm", "max_new_tokens": 16}, "trainer": {"use": "sft", "epochs": 2, "minibatch": 8}, "grader": {"use": "heldout", "max_new_tokens": 16},
    "strategy": "mean_entropy", "rounds": 2, "budget": 24, "drafts": True, "shard": 30, "pool": POOL,
}  # fmt: skip


@pytest.fixture(scope="module")
def gold():
    return {row["id"]: row["response"] for row in registry.build("pool", POOL)().to_pylist()}


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "outlay", "campaign", *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def do(folder: Path, *arguments: str) -> tuple[int, str]:
    job = start(folder, *arguments)
    said, _ = job.communicate(timeout=3600)
    return job.returncode, said


def files(root: Path) -> int:
    return sum(not name.endswith((".lock", ".tmp")) for _, _, names in os.walk(root) for name in names)


def killed(folder: Path, rng: np.random.Generator, *arguments: str) -> bool:
    """Kill the command a moment after it has written a few files more; False if it was done before that."""
    job, root = start(folder, *arguments), folder / "runs/killed"
    goal = files(root) + int(rng.integers(1, 6))
    while files(root) < goal and job.poll() is None:
        time.sleep(0.005)
    time.sleep(float(rng.uniform(0, 0.1)))
    alive = job.poll() is None
    if alive:
        os.kill(job.pid, signal.SIGKILL)
    job.communicate()
    return alive


def answers(folder: Path, gold: dict[str, str]) -> Path:
    """Everything that was asked so far, answered."""
    path = folder / "answers.jsonl"
    asked = [line for where in handoff.folders(folder / "runs/killed") for line in handoff.requests(where)]
    path.write_text("".join(json.dumps({"outlay_id": line["id"], "prompt": line["prompt"], "completion": gold[line["id"]], "annotator": "anna", "at": "2026-01-01T00:00:00Z"}) + "\n" for line in asked))
    return path


def content(root: Path) -> dict[str, str]:
    """Hash of every file that does not hold seconds."""
    found = {}
    for path in root.rglob("*"):
        if (path.is_file() and path.suffix in (".jsonl", ".safetensors", ".npy")) or path.name in ("selection.json", "batch.json", "drafts.json"):
            found[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory, gold):
    """The campaign, uninterrupted."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    for _ in range(2):
        assert do(folder, "next", "c.yaml")[0] == 3
        assert do(folder, "import", "c.yaml", str(answers(folder, gold)))[0] == 0
    assert do(folder, "next", "c.yaml")[0] == 0
    assert do(folder, "finish", "c.yaml")[0] == 0
    return folder / "runs/killed"


def test_a_campaign_killed_at_every_command_ends_like_an_uninterrupted_one(whole, gold, tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    rng, kills = np.random.default_rng(0), 0
    for number in range(3):
        while killed(tmp_path, rng, "next", "c.yaml"):
            kills += 1
        assert do(tmp_path, "next", "c.yaml")[0] == (3 if number < 2 else 0)
        if number < 2:
            file = str(answers(tmp_path, gold))
            kills += killed(tmp_path, rng, "import", "c.yaml", file)
            assert do(tmp_path, "import", "c.yaml", file)[0] == 0
    kills += killed(tmp_path, rng, "finish", "c.yaml")
    assert do(tmp_path, "finish", "c.yaml")[0] == 0
    assert kills >= 5
    assert content(tmp_path / "runs/killed") == content(whole)
    left = [p.relative_to(tmp_path).as_posix() for p in (tmp_path / "runs").rglob("*") if p.name.startswith(".") and p.name != ".lock"]
    assert left == []


def test_the_second_of_two_at_once_is_refused_and_names_the_first(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    first = start(tmp_path, "next", "c.yaml")
    try:
        while not (tmp_path / "runs/killed/study.json").exists():
            assert first.poll() is None
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGSTOP)
        code, said = do(tmp_path, "next", "c.yaml")
        assert code == 1 and f"another process (pid {first.pid}) is working in" in said
    finally:
        os.kill(first.pid, signal.SIGCONT)
    said, _ = first.communicate(timeout=3600)
    assert first.returncode == 3, said
