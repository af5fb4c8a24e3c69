"""A strategy in somebody else's package: installed for real, found through its entry point."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "outlay_far_and_unsure"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the example installed, and an environment that sees it."""
    site = tmp_path_factory.mktemp("site")
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "example")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site), str(source)]
    subprocess.run(pip, check=True, capture_output=True, timeout=120)
    return os.environ | {"PYTHONPATH": str(site)}


def run(env, *command):
    return subprocess.run([sys.executable, "-m", "outlay", *command], env=env, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[1])


def test_a_plug_in_is_listed_and_keeps_the_contract(installed):
    listed = run(installed, "list", "strategies")
    assert "far_and_unsure: Prompts that the model is unsure of" in listed.stdout
    check = subprocess.run([sys.executable, "-c", "from outlay.testing import check_strategy; check_strategy('far_and_unsure')"], env=installed, capture_output=True, text=True)
    assert check.returncode == 0, check.stderr


@pytest.mark.slow
def test_a_plug_in_runs_in_a_study_with_worker_processes(installed, tmp_path):
    done = run(installed, "study", "configs/toy.yaml", "strategies=[far_and_unsure]", "rounds=[2]", "seeds=2", "starts=[cold]", "--executor", "processes", "--out", str(tmp_path / "run"), "-q")
    assert done.returncode == 0, done.stderr
    assert "far_and_unsure" in done.stdout


def test_without_the_plug_in_its_name_is_an_error():
    assert run(dict(os.environ), "validate", "configs/toy.yaml", "strategies=[far_and_unsure]").returncode == 2
