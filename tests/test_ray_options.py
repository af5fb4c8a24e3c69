"""What can be said of Ray without Ray: its options, the room on a cluster, and the table of sizes in docs/cluster.md."""

import importlib.util
import sys
from pathlib import Path

import pytest

from outlay.config import elsewhere
from outlay.errors import ConfigError
from outlay.executors.ray import Ray, _room
from outlay.study import run_study, workers_of

ROOT = Path(__file__).parent.parent
NODES = [
    {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 64 * 2.0**30}},
    {"Alive": True, "Resources": {"CPU": 3.0, "memory": 8 * 2.0**30}},
    {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
]


@pytest.mark.parametrize(
    ("options", "room"),
    [
        ({}, 11),
        ({"num_cpus": 2}, 5),
        ({"num_gpus": 1}, 2),
        ({"num_gpus": 0.4}, 4),  # two on each device: a fifth one would lie across both
        ({"num_gpus": 0.1, "num_cpus": 0}, 20),
        ({"num_gpus": 0.25, "num_cpus": 2}, 4),
        ({"num_gpus": 2}, 1),
        ({"memory_gib": 16}, 4),
    ],
)
def test_processes_have_room_by_what_is_scarcest_on_each_living_node(options, room):
    assert _room(NODES, Ray(**options)) == room


def test_what_fits_no_node_is_refused_though_all_nodes_together_have_it():
    with pytest.raises(ConfigError, match="no node of the cluster has 9 CPU for a process"):
        _room(NODES, Ray(num_cpus=9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_gpus": 1.5}, "a fraction of one device or whole devices"),
        ({"num_cpus": 0}, "any number of processes would fit"),
        ({"at_once": 0}, "'at_once' = 0: it must be at least 1"),
        ({"num_cpu": 2}, "did you mean 'num_cpus'"),
        ({"unit": "rounds"}, "'cells' or 'stages'"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_a_run_directory_is_made(toy_study, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        run_study(toy_study(executor={"use": "ray", **options}), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_without_ray_the_error_names_the_extra(toy_study, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'outlay\[ray\]', or use executor: processes"):
        run_study(toy_study(executor="ray"), tmp_path / "run", quiet=True)


def test_the_command_line_keeps_the_options_that_the_config_gives_the_same_executor(toy_study):
    config = toy_study(executor={"use": "ray", "num_gpus": 0.5, "address": "old:1"})
    assert elsewhere(config, "ray(num_cpus=2)", "head:6379").executor == {"use": "ray", "num_gpus": 0.5, "num_cpus": 2, "address": "head:6379"}
    assert elsewhere(config, "serial", None).executor == "serial"
    assert elsewhere(config, None, None) is config


def test_a_minibatch_is_found_for_as_many_processes_as_share_a_device(toy_study):
    assert workers_of(toy_study(executor="ray(num_gpus=0.25)")) == 4
    assert workers_of(toy_study(executor="ray(num_gpus=1)")) == 1
    assert workers_of(toy_study(executor="ray(num_gpus=0.25)", workers=3)) == 3


def test_the_table_of_sizes_is_that_of_the_measured_figures():
    spec = importlib.util.spec_from_file_location("cluster_table", ROOT / "scripts" / "cluster_table.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["cluster_table"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "docs/cluster.md is stale; run: python scripts/cluster_table.py"
