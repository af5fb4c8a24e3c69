"""The same studies on real Ray: what processes, nodes and drivers lose on the way is made again, and nothing is bought twice.

Ray needs seconds to start, and more than its own limits on a busy machine: where it, and not an assertion, fails, a test is tried once more.
"""

import contextlib
import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from outlay import cli, shards
from outlay.errors import ConfigError, OutlayError
from outlay.executors.ray import Crew, Ray
from outlay.study import run_study
from outlay.toy import ToyPool, ToyScorer
from outlay.types import Model, Pool

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_register_timeout_seconds": "300", "RAY_health_check_timeout_ms": "60000", "RAY_task_oom_retries": "1"}  # before ray starts anything
if THERE := importlib.util.find_spec("ray") is not None:
    import ray
    from ray._private import services
    from ray._private.node import Node
    from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not THERE, reason="needs ray")]
REPOSITORY = Path(__file__).parents[2]
# 4 shards of the pool, 3 of a round; 3 campaigns, whose trainings are long enough to be interrupted.
STUDY = {"rounds": [1, 2], "starts": ["cold"], "shard": 30, "reference_curve": False, "trainer": {"use": "toy", "epochs": 5000}}


def retried(test):
    @functools.wraps(test)
    def twice(*args, tmp_path, **fixtures):
        try:
            return test(*args, tmp_path=tmp_path / "first", **fixtures)
        except (AssertionError, pytest.skip.Exception, pytest.fail.Exception):
            raise
        except Exception as bad:
            print(f"tried again after {bad!r}", file=sys.stderr)
            return test(*args, tmp_path=tmp_path / "second", **fixtures)

    return twice


@pytest.fixture(scope="module", autouse=True)
def patience():
    with pytest.MonkeyPatch.context() as change:
        change.setattr(services, "get_node", _patient(services.get_node))
        change.setattr(services, "wait_for_node", functools.partial(_wait_longer, services.wait_for_node))
        change.setattr(Node, "start_api_server", lambda self, **_: None)  # the dashboard takes longer to start than all the rest
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # its functions are called in processes that cannot import it
        yield


@pytest.fixture(scope="module")
def cluster(patience):
    """A cluster of one node with two CPUs, to which this process is connected."""
    for attempt in (1, 2):
        made = Cluster()
        try:
            made.add_node(num_cpus=2, include_dashboard=False, include_log_monitor=False, no_monitor=True)
            ray.init(address=made.address, log_to_driver=False)
            break
        except Exception:
            made.shutdown()
            if attempt == 2:
                raise
    yield made
    ray.shutdown()
    made.shutdown()


def _patient(get_node):
    """Ray gives a node 30 s to appear, and has no setting for it."""

    def wait(*args):
        deadline = time.monotonic() + 300
        while True:
            try:
                return get_node(*args)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    return wait


def _wait_longer(wait_for_node, gcs_address, store, _timeout):
    return wait_for_node(gcs_address, store, 300)


@pytest.fixture(scope="module")
def whole(toy_study, tmp_path_factory):
    """The study, uninterrupted, in one process."""
    return run_study(toy_study(**STUDY), tmp_path_factory.mktemp("whole") / "run", quiet=True)


def files(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != ".lock"}


def there(root, name):
    """The files of this name. os.walk, because rglob trips over folders that are taken away meanwhile."""
    return [Path(folder, name) for folder, _, names in os.walk(root) if name in names]


def check(root, whole):
    """Everything but study.json, which names the executor, is equal to the byte: journals of what was bought too."""
    found, expected = files(root), files(whole)
    assert set(found) == set(expected)
    assert {name for name in found if found[name] != expected[name]} == {"study.json"}
    journals = [name for name in found if name.endswith("reveals.jsonl")]
    assert journals
    for name in journals:
        ids = [json.loads(line)["id"] for line in found[name].splitlines()]
        assert len(ids) == len(set(ids)), name


@pytest.mark.parametrize("unit", ["cells", "stages"])
@retried
def test_ray_gives_the_bytes_of_serial(cluster, whole, toy_study, monkeypatch, *, unit, tmp_path):
    """In stages no call is told where the run directory is, so that it cannot be needed there."""
    sent = []

    def call(self, what, fn, *args, made=Crew.call):
        sent.append(ray.cloudpickle.dumps(args))
        return made(self, what, fn, *args)

    monkeypatch.setattr(Crew, "call", call)
    root = tmp_path / "the-run-directory"
    check(run_study(toy_study(**STUDY, executor={"use": "ray", "unit": unit}), root, quiet=True), whole)
    told = [b"the-run-directory" in one for one in sent]
    assert len(told) > 10 and (all(told) if unit == "cells" else not any(told))


def score(log, scorer, die_on, pool):
    """In a Ray process: kills it where it meets the prompt `die_on`, the first time or always."""
    with open(log, "a") as file:
        file.write(pool.ids[0] + "\n")
    if die_on[0] in pool.ids and (die_on[1] == "always" or Path(log).read_text().split().count(pool.ids[0]) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return scorer(Model("toy"), pool, frozenset({"mean_entropy", "embedding"}), seed=0)


def spread(crew, folder, pool, log, die_on):
    return shards.scored(folder, pool, np.arange(len(pool)), 20, lambda part: crew.call("a shard", score, log, ToyScorer(), die_on, part), key="toy", each=crew.map)


@retried
def test_a_lost_process_costs_one_shard_and_order_and_numbers_stay(cluster, *, tmp_path):
    tmp_path.mkdir()
    pool, log = Pool("toy", ToyPool(size=120)().drop_columns("response")), tmp_path / "log"
    with Ray(retries=1)._crew() as crew:
        found = spread(crew, tmp_path, pool, log, (pool.ids[50], "once"))
    starts = pool.ids[::20]
    assert sorted(log.read_text().split()) == sorted([*starts, starts[2]])
    local = shards.scored(tmp_path / "local", pool, np.arange(120), 20, lambda part: score(tmp_path / "other", ToyScorer(), ("", "never"), part), key="toy")
    for (rows, part), (expected, known) in zip(found, local, strict=True):
        assert rows.tolist() == expected.tolist() and part.columns.keys() == known.columns.keys() and part.cost == known.cost
        for name, values in known.columns.items():
            np.testing.assert_array_equal(part.columns[name], values)


@retried
def test_prompts_that_a_model_reads_on_ray_give_the_selection_and_the_embeddings_of_this_machine(cluster, random_llama, monkeypatch, *, tmp_path):
    tmp_path.mkdir()
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps({"prompt": f"what is {'abcdefghij'[row % 10] * (row % 13)} and {row % 97:b}".replace("0", "x").replace("1", "y")}) + "\n" for row in range(600)))
    monkeypatch.chdir(tmp_path)
    for name, where in (("here", []), ("there", ["--executor", "ray"])):
        command = ["outlay", "select", "pool.jsonl", "--model", random_llama.base, "--k", "9", "--strategy", "k_center", "-q", "--out", f"{name}.jsonl", "--keep-embeddings", f"{name}.npy", *where]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit, match=r"^(0|None)?$"):
            cli.main()
    assert len(np.load("here.npy")) == 600
    assert Path("here.npy").read_bytes() == Path("there.npy").read_bytes() and Path("here.jsonl").read_bytes() == Path("there.jsonl").read_bytes()


@retried
def test_a_shard_that_always_loses_its_process_ends_the_work_and_the_other_shards_stay(cluster, *, tmp_path):
    tmp_path.mkdir()
    pool, log = Pool("toy", ToyPool(size=120)().drop_columns("response")), tmp_path / "log"
    with pytest.raises(OutlayError, match="the Ray process of a shard was lost 2 times"), Ray(retries=1)._crew() as crew:
        spread(crew, tmp_path, pool, log, (pool.ids[110], "always"))
    done = len(list((tmp_path / shards.FOLDER).glob("*.npz")))
    log.unlink()
    with Ray(retries=1)._crew() as crew:
        spread(crew, tmp_path, pool, log, ("", "never"))
    assert done >= 3 and len(log.read_text().split()) == 6 - done


def training(root, log, unit):
    """The process that trains: which holds the lock of a campaign that has chosen and not yet trained, or whose last line in the log is that it began to. None where none does."""
    if unit == "cells":
        for chosen in there(root, "selection.json"):
            if not (chosen.parent / "model.json").exists():
                with contextlib.suppress(ValueError):  # the lock has just changed hands
                    return int((chosen.parents[1] / ".lock").read_text())
        return None
    last = {int(pid): words for *words, pid in (line.split() for line in (log.read_text() if log.exists() else "").splitlines())}
    return next((pid for pid, words in last.items() if words == ["begins", "_train"]), None)


def stopped_in_training(root, log, unit, raylets):
    """(process, raylet) of a process that trains and has been stopped, so that it cannot end before its node does. None where none trains just now."""
    pid = training(root, log, unit)
    if pid is None:
        return None
    with contextlib.suppress(psutil.Error):  # it has gone
        found = psutil.Process(pid)
        if found.ppid() in raylets:
            found.suspend()
            if training(root, log, unit) == pid:
                return found, found.ppid()
            found.resume()
    return None


def logged(log, fn, *args):
    """In a Ray process: what it does, and who does it."""
    with open(log, "a") as file:
        file.write(f"begins {fn.__name__} {os.getpid()}\n")
    found = fn(*args)
    with open(log, "a") as file:
        file.write(f"ends {fn.__name__} {os.getpid()}\n")
    return found


@pytest.mark.parametrize("unit", ["cells", "stages"])
@retried
def test_a_node_killed_in_the_middle_is_made_up_for_and_nothing_is_bought_twice(cluster, whole, toy_study, monkeypatch, *, unit, tmp_path):
    """Two nodes with a process each beside a head without room. The node goes that is training."""
    tmp_path.mkdir()
    calls, root, log = [], tmp_path / "run", tmp_path / "log"

    def call(self, what, fn, *args, made=Crew.call):
        calls.append(what)
        return made(self, what, logged, log, fn, *args)

    monkeypatch.setattr(Crew, "call", call)
    head = ray.remote(num_cpus=2)(Occupant).remote()
    ray.get(head.ready.remote())
    nodes = [cluster.add_node(num_cpus=1, include_log_monitor=False) for _ in range(2)]
    left = []

    def kill():
        raylets = {node.all_processes["raylet"][0].process.pid: node for node in nodes}
        found = None
        while found is None and not (root / "results.parquet").exists():
            found = stopped_in_training(root, log, unit, raylets)
            time.sleep(0.01)
        process, raylet = found
        left.append(len(there(root, "model.json")))
        cluster.remove_node(raylets[raylet], allow_graceful=False)
        process.kill()  # a stopped process does not see its node go
        nodes.remove(raylets[raylet])

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        run_study(toy_study(**STUDY, executor={"use": "ray", "unit": unit, "at_once": 2}), root, quiet=True)
        killer.join()
    finally:
        for node in nodes:
            cluster.remove_node(node)
        ray.kill(head)
    check(root, whole)
    assert left[0] < 4, "all 4 trainings were done before the node was killed"
    assert log.read_text().count("begins") > len(calls), "no call was lost"


class Occupant:
    def ready(self):
        pass


@pytest.mark.parametrize("unit", ["cells", "stages"])
@retried
def test_a_killed_driver_goes_on_where_it_stopped(cluster, whole, *, unit, tmp_path):
    tmp_path.mkdir()
    root, config = tmp_path / "run", tmp_path / "study.json"
    config.write_text(json.dumps(json.loads((whole / "study.json").read_text())["config"]))
    command = [sys.executable, "-m", "outlay", "study", str(config), "--out", str(root), "--executor", f"ray(unit='{unit}')", "--address", cluster.address, "-q"]
    driver = subprocess.Popen(command, cwd=REPOSITORY)
    while not there(root, "selection.json"):
        assert driver.poll() is None
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    stamps = {p: p.stat().st_mtime_ns for p in root.rglob("shard-*.parquet")}
    assert len(stamps) == 4 and not (root / "results.parquet").exists()
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=1500)
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}, "what was scored is not scored again"
    for table in ("results", "ledger"):
        pd.testing.assert_frame_equal(*(pd.read_parquet(r / f"{table}.parquet") for r in (root, whole)))
    made = {name: data for name, data in files(root).items() if name.startswith(("campaigns", "shared"))}
    assert made == {name: data for name, data in files(whole).items() if name.startswith(("campaigns", "shared"))}


def test_what_does_not_fit_any_node_is_said_before_anything_is_bought(cluster, toy_study, tmp_path):
    with pytest.raises(ConfigError, match="no node of the cluster has 1 CPU, 1 GPU for a process"):
        run_study(toy_study(executor={"use": "ray", "num_gpus": 1}), tmp_path / "run", quiet=True)
    assert not list((tmp_path / "run").rglob("reveals.jsonl"))


def eat(flag, once):
    """In a Ray process: takes 3 GiB and waits to be stopped; with `once`, where `flag` is not there yet."""
    if once and Path(flag).exists():
        return "enough"
    Path(flag).touch()
    taken = [np.ones(2**24, dtype=np.uint8) for _ in range(192)]
    time.sleep(300)
    return f"nobody minded {len(taken)} arrays"


@retried
def test_a_worker_out_of_memory_is_tried_again_and_then_named(*, tmp_path):
    """Ray's memory monitor stops the process, at 1.5 GiB more than is in use now."""
    tmp_path.mkdir()
    used, total = ray._private.utils.get_used_memory(), ray._private.utils.get_system_memory()  # of the container, if it has a limit
    if total - used < 4 * 2**30:
        pytest.skip(f"expected: {(total - used) / 2**30:.1f} GiB of memory are free, this test needs 4")
    ray.shutdown()
    limit = (used + 1.5 * 2**30) / total
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, _system_config={"memory_usage_threshold": limit, "memory_monitor_refresh_ms": 100})
    try:
        with Ray(retries=1)._crew() as crew:
            assert crew.call("the eater", eat, tmp_path / "flag", True) == "enough"
            with pytest.raises(OutlayError, match=r"the Ray process of the eater was lost 2 times .*low on memory"):
                crew.call("the eater", eat, tmp_path / "flag", False)
    finally:
        ray.shutdown()
