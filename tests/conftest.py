"""What all tests share. With OUTLAY_NO_SKIP=1 a skip is a failure, unless its reason begins with "expected:"."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import copy
from pathlib import Path

import pytest

SMALL = {
    "name": "small",
    "pool": {"use": "toy", "size": 120},
    "pool_per_seed": 90,
    "model": "toy",
    "scorer": "toy",
    "trainer": {"use": "toy", "epochs": 2},
    "evaluators": {"held_out": {"use": "toy", "source": {"use": "toy", "size": 40, "split": "test"}}},
    "strategies": ["random", "mean_entropy"],
    "rounds": [1, 2],
    "starts": ["cold", "warm_all"],
    "seeds": [0],
    "budgets": [8],
    "random_sets": 3,
    "shard": 50,
    "executor": "serial",
}


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: a real LLM, kills, a browser; run by `make test-slow`")


def _forbid(report):
    """Turn a skip into a failure, where skips are not allowed."""
    if os.environ.get("OUTLAY_NO_SKIP") != "1" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith("expected:"):
        report.outcome, report.longrepr = "failed", f"{report.nodeid} was skipped, and OUTLAY_NO_SKIP=1 forbids it: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    _forbid(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    _forbid(report)
    return report


@pytest.fixture
def toy_raw():
    """A toy study of a second as a mapping, to change at will."""
    return copy.deepcopy(SMALL)


@pytest.fixture(scope="session")
def toy_study():
    """toy_study(seeds=[0, 1]) -> the config of a toy study of a second, with these keys changed."""
    from outlay.config import validate

    return lambda **changes: validate(copy.deepcopy(SMALL) | changes)


@pytest.fixture(scope="session")
def toy_run(toy_study, tmp_path_factory):
    """The run directory of a finished small study with facility location. Read only: tests that change a run make their own."""
    from outlay.study import run_study

    config = toy_study(strategies=["random", "mean_entropy", "facility_location"], budgets=[8, 16])
    return run_study(config, tmp_path_factory.mktemp("runs") / "finished", quiet=True)


@pytest.fixture(scope="session")
def outlay_data():
    """The folder that OUTLAY_DATA names: real data sets, among them flan_v2_cot."""
    if "OUTLAY_DATA" not in os.environ:
        pytest.skip("OUTLAY_DATA is not set; it names the folder that holds flan_v2_cot")
    return Path(os.environ["OUTLAY_DATA"])
