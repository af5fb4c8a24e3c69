"""What leaves a run directory: exported folders, tracker events; and what a new user starts from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from outlay import config as configs
from outlay import trackers
from outlay.errors import ConfigError, DataError, OutlayError
from outlay.export import export
from outlay.store import Store
from outlay.study import run_study
from outlay.types import Batch

TOY = Path(__file__).parents[1] / "configs" / "toy.yaml"
CAMPAIGN = "min_margin-m2-even-cold-b12-s0"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    asked = configs.load(TOY, ["strategies=[min_margin]", "rounds=[2]", "starts=[cold]", "seeds=1", "budgets=[12]"])
    return run_study(asked, tmp_path_factory.mktemp("export") / "run", quiet=True)


def test_the_data_set_holds_what_was_bought_in_the_order_of_buying(run, tmp_path):
    dataset, model = export(run, CAMPAIGN, tmp_path / "out")
    rows = [json.loads(line) for line in (dataset / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    batches = [Store(run).read(f"campaigns/{CAMPAIGN}/round-00{n}/batch.json", Batch) for n in (1, 2)]
    assert [(r["id"], r["completion"], r["round"]) for r in rows] == [(a.prompt_id, a.response, a.round) for b in batches for a in b.annotations]
    assert len(rows) == 12 and all(r["prompt"] for r in rows)
    kept = run / "campaigns" / CAMPAIGN / "round-002" / "model"
    assert {p.name for p in model.iterdir()} == {p.name for p in kept.iterdir()} | {"README.md"}
    assert "12 annotations" in (dataset / "README.md").read_text() and "base_model: toy" in (model / "README.md").read_text()


def test_nothing_is_exported_over_other_files(run, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="not empty"):
        export(run, CAMPAIGN, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unknown_campaign_is_an_error_with_the_near_match(run, tmp_path):
    with pytest.raises(ConfigError, match=f"did you mean '{CAMPAIGN}'"):
        export(run, CAMPAIGN.replace("s0", "s1"), tmp_path / "out")


def test_weights_that_were_not_kept_are_an_error_not_half_an_export(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(copy / "campaigns" / CAMPAIGN / "round-002" / "model")
    with pytest.raises(DataError, match="keep_models=all"):
        export(copy, CAMPAIGN, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_trackers_get_each_campaign_once_and_the_numbers_of_the_table(run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    table = pd.read_parquet(run / "results.parquet")
    shutil.copy(run / "results.parquet", tmp_path)
    for _ in range(2):
        trackers.send(tmp_path, ["tensorboard"], "toy")
    folder = tmp_path / "trackers/tensorboard" / CAMPAIGN
    events = EventAccumulator(str(folder))
    events.Reload()
    mine = table[table["campaign"] == CAMPAIGN].sort_values("labels_spent")
    sent = events.Scalars("held_out/accuracy")
    assert [s.step for s in sent] == mine["labels_spent"].tolist() == [0, 6, 12]
    assert [s.value for s in sent] == pytest.approx(mine["accuracy"].tolist())
    assert len(list(folder.glob("events*"))) == 1


def test_the_config_that_init_writes_is_valid_and_is_not_written_over(tmp_path):
    from outlay import cli
    from outlay.study import check

    cli.init("study", tmp_path / "new.yaml")
    check(configs.load(tmp_path / "new.yaml"))
    with pytest.raises(ConfigError, match="there already"):
        cli.init("study", tmp_path / "new.yaml")


def test_the_schema_knows_every_key_of_a_study(capsys):
    from outlay import cli

    cli.schema()
    assert set(json.loads(capsys.readouterr().out)["properties"]) == set(configs.StudyConfig.model_fields)


def test_a_tracker_whose_package_is_half_installed_is_named_in_one_line(run, tmp_path, monkeypatch):
    (tmp_path / "site/trackio-9.dist-info").mkdir(parents=True)
    (tmp_path / "site/trackio-9.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: trackio\nVersion: 9\n")
    (tmp_path / "site/trackio.py").write_text("import a_package_that_is_missing\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    shutil.copy(run / "results.parquet", tmp_path)
    with pytest.raises(OutlayError, match=r"trackio, whose package is broken here \(No module named 'a_package_that_is_missing'\)"):
        trackers.send(tmp_path, ["trackio"], "toy")
