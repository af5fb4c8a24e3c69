"""One file a stage: whole or not there, written once, named when damaged; one process a run directory."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from outlay import store as stores
from outlay.errors import DataError, OutlayError, RunConflict
from outlay.store import Store, write_atomic
from outlay.types import Annotation, Batch, Cost, Evaluation, Model, Selection, Signals

RECORDS = [
    Selection("random", ("a", "b"), (0.5, -1.0), None),
    Batch((Annotation("a", response="ä\u2028\n\t\"x\"", round=2, seconds=1.5), Annotation("b", "skip")), Cost(labels=1, usd=2.5)),
    Model("tiny", "campaigns/x/round-001/model", "lora", 12, "abc", Cost(flops=10**18, seconds=0.1)),
]
COLUMNS = {
    "mean_entropy": np.array([0.1, np.nan, 3e38], dtype=np.float32),
    "response_tokens": np.array([1, 0, 7], dtype=np.int32),
    "correct": np.array([True, False, True]),
    "id": np.array(["a", "ü\u2028", ""]),
    "embedding": np.arange(12, dtype=np.float32).reshape(3, 4),
    "nll": np.array([0.1, 0.2, 0.3]),
}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def files(folder: Path) -> list[str]:
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_a_record_comes_back_as_it_was(store, record):
    store.write("x/record.json", record)
    assert store.read("x/record.json", type(record)) == record


@pytest.mark.parametrize("kind", [Signals, Evaluation])
def test_columns_come_back_bit_for_bit_with_their_types(store, kind):
    cost = Cost(seconds=0.1, flops=10**17)
    record = Signals(COLUMNS, frozenset({"mean_entropy"}), cost) if kind is Signals else Evaluation("bbh", "f00", COLUMNS, cost)
    store.write("x.parquet", record)
    found = store.read("x.parquet", kind)
    assert set(found.columns) == set(COLUMNS)
    for name, values in COLUMNS.items():
        assert found.columns[name].dtype == values.dtype, name
        assert found.columns[name].tobytes() == values.tobytes(), name
    assert found.cost == cost
    assert (found.live == {"mean_entropy"}) if kind is Signals else ((found.benchmark, found.items) == ("bbh", "f00"))


def test_signals_without_any_scalar_column_come_back(store):
    store.write("x.parquet", Signals({"embedding": COLUMNS["embedding"]}))
    assert np.array_equal(store.read("x.parquet", Signals).columns["embedding"], COLUMNS["embedding"])


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_loaded_arrays_are_read_only(store, name):
    store.write("x.parquet", Signals(COLUMNS))
    column = store.read("x.parquet", Signals).columns[name]
    with pytest.raises(ValueError, match="read-only"):
        column[0] = column[1]


def test_equal_records_are_equal_bytes(store):
    for name in ("a", "b"):
        store.write(f"{name}.parquet", Signals(dict(reversed(COLUMNS.items())) if name == "c" else COLUMNS, frozenset({"nll", "mean_entropy"})))
        store.write(f"{name}.json", RECORDS[1])
    assert (store.root / "a.parquet").read_bytes() == (store.root / "b.parquet").read_bytes()
    assert (store.root / "a.json").read_bytes() == (store.root / "b.json").read_bytes()


def test_what_is_there_is_read_and_not_made_again(store):
    made = []
    for _ in range(3):
        assert store.keep("m.json", Model, lambda: made.append(1) or RECORDS[2]) == RECORDS[2]
    assert made == [1]


def test_the_first_call_returns_what_a_later_read_returns(store):
    wide = Signals({"score": np.array([0.1, 0.2], dtype=np.float64)[::-1]})
    first = store.keep("s.parquet", Signals, lambda: wide)
    again = store.keep("s.parquet", Signals, lambda: pytest.fail("made again"))
    assert first.columns["score"].tobytes() == again.columns["score"].tobytes()
    assert not first.columns["score"].flags.writeable


def test_a_stage_that_fails_leaves_no_file(store):
    with pytest.raises(ZeroDivisionError):
        store.keep("m.json", Model, lambda: 1 / 0)
    assert files(store.root) == []


def test_equal_arrays_are_stored_once(store):
    paths = {store.array(np.arange(6).reshape(2, 3)[:, ::step]) for step in (1, 1, -1)}
    assert len(paths) == 2
    assert len(files(store.root)) == 2


def test_nan_is_not_written_into_json(store):
    with pytest.raises(ValueError, match="Out of range float"):
        store.write("d.json", {"vendi": float("nan")})
    assert files(store.root) == []


# -- crashes and full disks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_file_or_none(step, tmp_path):
    """SIGKILL before each step of the write."""
    code = f"""
import os, signal, sys
from pathlib import Path
from outlay import store
die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
if {step!r} == "write":
    real = open
    store.open = lambda *a, **k: (real(*a, **k), die())[0]
else:
    setattr(os, {step!r}, die)
store.write_atomic(Path(sys.argv[1]), b"new" * 100_000)
"""
    for old in (None, b"old"):
        target = tmp_path / f"{step}-{old}" / "model.json"
        if old:
            write_atomic(target, old)
        assert subprocess.run([sys.executable, "-c", code, str(target)]).returncode == -signal.SIGKILL
        assert (target.read_bytes() if target.exists() else None) == old
        Store(target.parent).sweep()
        assert files(target.parent) == (["model.json"] if old else [])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["fsync", "write"])
def test_a_full_disk_names_the_fix_and_leaves_nothing_half_written(store, monkeypatch, step, code):
    def full(*_):
        raise OSError(code, os.strerror(code))

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        real = open

        @contextlib.contextmanager
        def half(path, mode):
            with real(path, mode) as file:
                file.write(b"ha")
                full()
                yield

        monkeypatch.setattr(stores, "open", half, raising=False)
    with pytest.raises(OutlayError, match=r"disk is full while writing .*m\.json; free some space and run the same command again"):
        store.write("deep/m.json", RECORDS[2])
    assert files(store.root) == []


def test_a_really_full_disk(tmp_path):
    """On a file system of 64 KiB, where one may be mounted."""
    code = f"""
import sys; sys.path[:0] = {sys.path!r}
from pathlib import Path
from outlay.store import write_atomic
from outlay.errors import OutlayError
try:
    write_atomic(Path("{tmp_path}/small/x.bin"), b"x" * 200_000)
except OutlayError as full:
    print(full, *[f.name for f in Path("{tmp_path}/small").iterdir()], sep="|", end="")
"""
    (tmp_path / "small").mkdir()
    mount = ["unshare", "--mount", "--map-root-user", "sh", "-c", f'mount -t tmpfs -o size=64k tmpfs {tmp_path}/small && exec "$0" -c "$1"', sys.executable, code]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("expected: there is no unshare on this machine")
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip("expected: this machine forbids private mounts")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"the disk is full while writing {tmp_path}/small/x.bin; free some space and run the same command again"


def test_a_file_where_a_folder_should_be_is_an_error_of_one_line(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(OutlayError, match=r"cannot write .* choose another with --out"):
        write_atomic(tmp_path / "runs" / "x.json", b"")


@pytest.mark.parametrize(("name", "kind"), [("m.json", Model), ("s.parquet", Signals), ("d.json", dict)])
@pytest.mark.parametrize("damage", ["empty", "cut"])
def test_a_damaged_file_is_named(store, name, kind, damage):
    store.write(name, {Model: RECORDS[2], Signals: Signals(COLUMNS), dict: {"a": 1}}[kind])
    path = store.root / name
    raw = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": raw[: len(raw) // 2]}[damage])
    with pytest.raises(DataError, match=rf"{name} is damaged .* delete it and run again"):
        store.read(name, kind)


def test_a_flipped_bit_in_a_number_is_noticed(store):
    store.write("s.parquet", Signals({"score": np.random.default_rng(0).random(5000)}))
    raw = bytearray((store.root / "s.parquet").read_bytes())
    raw[len(raw) // 2] ^= 1
    (store.root / "s.parquet").write_bytes(raw)
    with pytest.raises(DataError, match=r"s\.parquet is damaged .* delete it and run again"):
        store.read("s.parquet", Signals)


def test_a_record_with_a_missing_field_is_named(store):
    store.write("s.json", {"strategy": "random"})
    with pytest.raises(DataError, match=r"s\.json is damaged .*ids"):
        store.read("s.json", Selection)


def test_scalars_and_the_price_of_signals_are_read_although_their_arrays_are_gone(store):
    whole = Signals(COLUMNS, cost=Cost(flops=7))
    store.write("signals.parquet", whole)
    for file in (store.root / "shared/arrays").iterdir():
        file.unlink()
    found = store.scalars("signals.parquet")
    assert found.cost == whole.cost and set(found.columns) == {name for name, values in COLUMNS.items() if values.ndim == 1}


def test_a_record_whose_array_is_gone_is_named(store):
    store.write("s.parquet", Signals(COLUMNS))
    next((store.root / "shared/arrays").iterdir()).unlink()
    with pytest.raises(DataError, match=r"s\.parquet is damaged .*npy"):
        store.read("s.parquet", Signals)


# -- locks -----------------------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from outlay.store import Store
with Store(Path(sys.argv[1])).lock(".lock"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_held_lock_names_the_process(store, holder):
    with pytest.raises(RunConflict, match=rf"\(pid {holder.pid}\) is working in"), store.lock(".lock"):
        pytest.fail("two processes hold it")


def test_the_lock_of_a_killed_process_is_free(store, holder):
    holder.kill()
    holder.wait()
    with store.lock(".lock"):
        assert (store.root / ".lock").read_text() == str(os.getpid())


def test_a_lock_is_free_after_an_error_inside(store):
    with contextlib.suppress(KeyError), store.lock(".lock"):
        raise KeyError
    with store.lock(".lock"):
        assert (store.root / ".lock").exists()


def test_a_lock_can_be_waited_for(store, holder):
    subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {holder.pid}"])
    with store.lock(".lock", wait=30):
        assert holder.wait() == -signal.SIGKILL
