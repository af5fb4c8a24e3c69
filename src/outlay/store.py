"""The run directory is the only state: every stage is one file, written atomically and once; running again reads it.

Records of scalars are JSON. Records of arrays (Signals, Evaluation) are Parquet, with the rest of the record in the file's
metadata; their 2-D columns lie beside, as memory-mapped .npy addressed by content. No pickle anywhere.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import io
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .errors import DataError, OutlayError, RunConflict
from .types import Cost, Evaluation, Signals

T = TypeVar("T")


def dumps(value: Any, *, sort: bool = False) -> bytes:
    """JSON in the order of the keys (a config's order means something: the first evaluator leads), or sorted for hashing."""
    return (json.dumps(value, sort_keys=sort, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def fingerprint(value: Any) -> str:
    """Hash of a JSON-able value."""
    return hashlib.sha256(dumps(value, sort=True)).hexdigest()[:16]


def write_atomic(path: Path, data: bytes) -> None:
    """All of the bytes or no file: temporary sibling, fsync, rename. A full disk becomes an OutlayError and leaves nothing."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")  # not the pid: nodes that share a run directory may have the same one
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as bad:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if bad.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutlayError(f"the disk is full while writing {path}; free some space and run the same command again") from None
        raise OutlayError(f"cannot write {path}: {bad.strerror}; check the folder's permissions or choose another with --out") from None


def hash_folder(folder: Path) -> str:
    """Hash of the names and bytes of the files in a weights folder."""
    digest = hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Store:
    """A run directory. Paths given to it are relative to `root`."""

    root: Path
    gate: Callable[[str], None] | None = None  # called before a record is made, with its path; it may raise

    def keep(self, path: str, kind: type[T], make: Callable[[], T]) -> T:
        """The record at `path` if it is there, else `make()`, stored. What is returned is always what a later read returns."""
        if not (self.root / path).exists():
            if self.gate is not None:
                self.gate(path)
            self.write(path, make())
        return self.read(path, kind)

    def write(self, path: str, record: Any) -> None:
        data = self._table(record) if isinstance(record, Signals | Evaluation) else dumps(record if isinstance(record, dict) else asdict(record))
        write_atomic(self.root / path, data)

    def read(self, path: str, kind: type[T]) -> T:
        """The stored record. DataError names a file that is damaged."""
        return self._read(path, kind)

    def scalars(self, path: str) -> Signals:
        """Stored signals without their arrays, which may be gone."""
        return self._read(path, Signals, arrays=False)

    def _read(self, path: str, kind: type[T], *, arrays: bool = True) -> T:
        try:
            if kind in (Signals, Evaluation):
                return self._untable(self.root / path, kind, arrays)
            raw = json.loads((self.root / path).read_bytes())
            return raw if kind is dict else _record(kind, raw)
        except Exception as bad:
            if not (self.root / path).exists():
                raise
            raise DataError(f"{self.root / path} is damaged ({type(bad).__name__}: {' '.join(str(bad).split())}); delete it and run again to make it anew") from None

    def cost(self, path: str) -> Cost:
        """What the stored stage consumed, without its columns."""
        if not path.endswith(".parquet"):
            return Cost(**self.read(path, dict)["cost"])
        import pyarrow.parquet as pq

        return Cost(**json.loads(pq.read_schema(self.root / path).metadata[b"outlay"])["cost"])

    def array(self, values: np.ndarray) -> str:
        """Store an array by content under shared/arrays; -> its path relative to the root."""
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(values), allow_pickle=False)
        data = buffer.getvalue()
        path = f"shared/arrays/{hashlib.sha256(data).hexdigest()[:20]}.npy"
        if not (self.root / path).exists():
            write_atomic(self.root / path, data)
        return path

    def _table(self, record: Signals | Evaluation) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        flat = {name: values for name, values in record.columns.items() if values.ndim == 1}
        meta: dict[str, Any] = {
            "arrays": {name: self.array(values) for name, values in record.columns.items() if values.ndim > 1},
            "cost": asdict(record.cost),
        }
        meta |= {"live": sorted(record.live)} if isinstance(record, Signals) else {"benchmark": record.benchmark, "items": record.items}
        table = pa.table({name: pa.array(values.tolist() if values.dtype.kind in "UO" else values) for name, values in flat.items()})
        sink = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({"outlay": dumps(meta)}), sink, write_page_checksum=True)
        return sink.getvalue()

    def _untable(self, path: Path, kind: type, arrays: bool) -> Any:
        import pyarrow.parquet as pq

        table = pq.read_table(path, page_checksum_verification=True)
        meta = json.loads(table.schema.metadata[b"outlay"])
        columns: dict[str, np.ndarray] = {}
        for name in table.column_names:
            column = table.column(name)
            columns[name] = np.array(column.to_pylist(), dtype=np.str_) if str(column.type) == "string" else column.to_numpy()
            columns[name].flags.writeable = False
        for name, where in meta["arrays"].items() if arrays else ():
            columns[name] = np.load(self.root / where, mmap_mode="r", allow_pickle=False)
        cost = Cost(**meta["cost"])
        return Signals(columns, frozenset(meta["live"]), cost) if kind is Signals else Evaluation(meta["benchmark"], meta["items"], columns, cost)

    def sweep(self, *, but: str = "") -> None:
        """Delete the temporary files of processes that were killed, but in the folder of that name. Only for the holder of the run's lock."""
        for folder, below, files in os.walk(self.root):  # unlike rglob, it bears folders that a dying worker takes away
            below[:] = [name for name in below if name != but]
            for name in files:
                if name.startswith(".") and name.endswith(".tmp"):
                    with contextlib.suppress(OSError):
                        os.unlink(os.path.join(folder, name))

    @contextlib.contextmanager
    def lock(self, path: str, wait: float = 0.0) -> Iterator[None]:
        """Hold the lock file at `path`. The kernel frees it when the process dies. RunConflict names the holder after `wait` seconds."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "a+") as file:
            deadline = time.monotonic() + wait
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        file.seek(0)
                        raise RunConflict(f"another process (pid {file.read().strip() or '?'}) is working in {target.parent}; wait for it, or choose another --out") from None
                    time.sleep(0.1)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def _record(kind: type[T], raw: Any) -> T:
    return _adapter(kind).validate_python(raw)


@functools.cache
def _adapter(kind: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
