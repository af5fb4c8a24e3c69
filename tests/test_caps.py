"""A cap stops a study between two stages; the same command goes on under a higher one, to the same bytes."""

from pathlib import Path

import pandas as pd
import pytest

from outlay import caps
from outlay.config import StudyConfig
from outlay.errors import CapReached
from outlay.store import Store
from outlay.study import run_study


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and not p.name.endswith(".lock")}


@pytest.fixture(scope="module")
def whole(toy_study, tmp_path_factory):
    """A small study, done without a cap. Read only."""
    return run_study(toy_study(), tmp_path_factory.mktemp("whole") / "run", quiet=True)


def spent(root):
    return caps.Meter(Store(root)).spent()


def test_the_meter_reads_what_the_ledger_says_was_paid(whole):
    table, found = pd.read_parquet(whole / "ledger.parquet"), spent(whole)
    paid = table[table["paid"]]
    for name in ("labels", "flops", "prompt_tokens", "generated_tokens", "trained_tokens"):
        assert getattr(found, name) == paid[name].sum(), name
    assert found.seconds == pytest.approx(paid["seconds"].sum())
    assert StudyConfig.model_validate(Store(whole).read("study.json", dict)["config"]).prices.usd(found) == pytest.approx(paid["usd"].sum())


@pytest.mark.parametrize("cap", ["max_usd", "max_hours", "max_flops"])
def test_a_capped_study_stops_and_goes_on_to_the_same_bytes(whole, toy_study, tmp_path, cap):
    full = {"max_usd": toy_study().prices.usd(spent(whole)), "max_hours": spent(whole).seconds / 3600, "max_flops": spent(whole).flops}[cap]
    root = tmp_path / "run"
    stages = -1
    for share in (0.1, 0.4, 0.8):
        with pytest.raises(CapReached, match=rf"{cap} is .* of 18 stages are done and kept; raise the cap"):
            run_study(toy_study(**{cap: share * full}), root, quiet=True)
        done = len(files(root))
        assert done > stages
        stages = done
    run_study(toy_study(), root, quiet=True)
    assert files(root) == files(whole)


def test_annotations_never_pass_the_cap(whole, toy_study, tmp_path):
    with pytest.raises(CapReached, match="max_usd"):
        run_study(toy_study(max_usd=13.0, prices={"per_annotation": 1.0, "per_device_hour": 0.0}), tmp_path / "run", quiet=True)
    assert 0 < spent(tmp_path / "run").labels <= 13


def test_a_cap_that_is_not_reached_changes_no_stage(whole, toy_study, tmp_path):
    root = run_study(toy_study(max_usd=1e6, max_flops=1e18), tmp_path / "run", quiet=True)
    assert {n: b for n, b in files(root).items() if n != "study.json"} == {n: b for n, b in files(whole).items() if n != "study.json"}


@pytest.mark.slow
def test_worker_processes_end_their_stage_and_none_begins_another(toy_study, tmp_path):
    config = toy_study(executor="processes", workers=2, max_flops=1)
    with pytest.raises(CapReached, match="FLOPs are spent; max_flops is 1"):
        run_study(config, tmp_path / "run", quiet=True)
    assert len(list((tmp_path / "run").glob("shared/signals-0/*.parquet"))) <= 2
    assert not list((tmp_path / "run").glob("campaigns/*/*/batch.json"))
