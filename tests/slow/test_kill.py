"""A study may be killed at any moment, with or without its workers: run again, it ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="expected: the children of a killed process are found in /proc")]

REPOSITORY = Path(__file__).parents[2]
TOY = ["configs/toy.yaml", "strategies=[random,mean_entropy]", "seeds=1", "rounds=[1,2]", "budgets=[12]", "pool.size=150", "pool_per_seed=100", "random_sets=5", "shard=40", "workers=2"]
SMALL_TEST = "{use: heldout, max_new_tokens: 16, source: {use: skills, split: test, size: 20}}"
REAL = [
    "configs/quickstart.yaml", "pool.size=60", "pool_per_seed=40", "seeds=1", "budgets=[8]", "rounds=[1,2]", "starts=[cold,warm_all]", "strategies=[random,mean_entropy]",
    "trainer.epochs=2", f"evaluators={{like_pool: {SMALL_TEST}}}", "random_sets=3", "shard=20", "workers=2",
]  # fmt: skip


class Job:
    """`outlay study` as a process group of its own. Its environment has a token, by which its children are found."""

    def __init__(self, arguments: list[str], out: Path, executor: str = "processes"):
        self.token = f"OUTLAY_TEST_TOKEN={uuid.uuid4().hex}"
        name, value = self.token.split("=")
        command = [sys.executable, "-m", "outlay", "study", *arguments, "--out", str(out), "--executor", executor, "--quiet"]
        environment = os.environ | {name: value, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def kill(self, *, workers_too: bool) -> None:
        if workers_too:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def finish(self) -> None:
        said, _ = self.process.communicate(timeout=600)
        assert self.process.returncode == 0, said

    def alive(self) -> list[int]:
        """The pids of living processes that this job started."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and self.token.encode() in (folder / "environ").read_bytes() and (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def wait_until_nobody_is_left(self) -> None:
        deadline = time.monotonic() + 20
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self.alive() == []


def stages(root: Path) -> int:
    """How many stage files are there. os.walk, because rglob trips over folders that a worker moves away meanwhile."""
    return sum(name.endswith((".json", ".jsonl", ".parquet")) for _, _, names in os.walk(root) for name in names)


def kill_somewhere(job: Job, root: Path, rng: np.random.Generator, total: int, *, workers_too: bool) -> bool:
    """Kill the job a moment after it has written a random number of further files; False if it was done before that."""
    goal = stages(root) + int(rng.integers(0, total // 2))
    while stages(root) < goal:
        if job.process.poll() is not None:
            break
        time.sleep(0.005)
    time.sleep(float(rng.uniform(0, 0.1)))
    if job.process.poll() is not None:
        job.finish()
        return False
    job.kill(workers_too=workers_too)
    return True


def check(root: Path, whole: Path) -> None:
    found, expected = (pd.read_parquet(r / "results.parquet").drop(columns=["seconds", "usd"]) for r in (root, whole))
    pd.testing.assert_frame_equal(found, expected)
    found, expected = (pd.read_parquet(r / "ledger.parquet").drop(columns=["seconds", "usd"]) for r in (root, whole))
    pd.testing.assert_frame_equal(found, expected)
    digests = [{p.relative_to(r).as_posix(): json.loads(p.read_text())["digest"] for p in r.glob("campaigns/*/*/model.json")} for r in (root, whole)]
    assert digests[0] == digests[1]
    journals = sorted(root.glob("campaigns/*/reveals.jsonl"))
    assert len(journals) > 3
    for journal in journals:
        bought = [json.loads(line)["id"] for line in journal.read_text().split("\n")[:-1]]
        assert len(bought) == len(set(bought)), journal
        assert journal.read_bytes() == (whole / journal.relative_to(root)).read_bytes()
    left = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.name.startswith(".") and p.name != ".lock"]
    assert left == []
    assert sorted(p.relative_to(root) for p in root.glob("campaigns/*/*/model/*")) == sorted(p.relative_to(whole) for p in whole.glob("campaigns/*/*/model/*"))


def trial(arguments: list[str], whole: Path, folder: Path, kills: int, seed: int) -> None:
    """Studies are killed and run again, `kills` times in all, and every one of them ends like `whole`."""
    rng = np.random.default_rng(seed)
    total, done, run = stages(whole), 0, 0
    while done < kills:
        root = folder / f"run-{run}"
        run += 1
        orphaned = []
        while done < kills:
            workers_too = bool(done % 2)
            job = Job(arguments, root)
            if not kill_somewhere(job, root, rng, total, workers_too=workers_too):
                break
            done += 1
            orphaned.append(job)
            if rng.random() < 0.5:  # the other half of the time the next one starts while orphans may still be about
                job.wait_until_nobody_is_left()
        Job(arguments, root).finish()
        for job in orphaned:
            job.wait_until_nobody_is_left()
        check(root, whole)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The toy study, uninterrupted, in one process."""
    root = tmp_path_factory.mktemp("toy") / "whole"
    Job(TOY, root, "serial").finish()
    return root


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_study_ends_like_an_uninterrupted_one(toy, tmp_path, seed):
    trial(TOY, toy, tmp_path, kills=10, seed=seed)


def test_a_killed_study_of_a_real_model_ends_like_an_uninterrupted_one(tmp_path):
    Job(REAL, tmp_path / "whole", "serial").finish()
    trial(REAL, tmp_path / "whole", tmp_path, kills=4, seed=7)


def test_workers_die_with_their_driver(tmp_path):
    """Killed alone, when its workers are at work."""
    job = Job([*TOY, "trainer={use: toy, epochs: 3000}"], tmp_path / "run")
    while not list((tmp_path / "run").glob("campaigns/*/*/selection.json")):
        assert job.process.poll() is None
        time.sleep(0.01)
    assert len(job.alive()) >= 3
    job.kill(workers_too=False)
    job.wait_until_nobody_is_left()
    before = sorted((tmp_path / "run").rglob("*"))
    time.sleep(1)
    assert sorted((tmp_path / "run").rglob("*")) == before
