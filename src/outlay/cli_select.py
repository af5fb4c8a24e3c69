"""`outlay select`: choose k prompts of a pool once, without a campaign."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import time
import tokenize
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

    from .acquisition.alone import Selected
    from .coverage.parallel import Progress
    from .types import Floats, Indices, Pool, Signals

SHARD = 256  # prompts that are embedded between two signs of life
EXAMPLES = 3
ENDINGS = (".jsonl", ".csv", ".parquet")


def select(
    pool: Annotated[Path, typer.Argument(help="JSONL, CSV, TSV or Parquet file with one prompt a row.", show_default=False)],
    k: Annotated[int, typer.Option("--k", min=1, help="How many prompts to choose.", show_default=False)],
    out: Annotated[Path, typer.Option(help=f"File to write, most wanted first: {', '.join(ENDINGS)}.", show_default=False)],
    embeddings: Annotated[Path | None, typer.Option(metavar="E.npy", help="A .npy array (rows, dimensions) of float16 or float32, in the order of the pool; it is not read into memory whole.", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="Compute what the strategy needs with this model: a folder, a hub id or a name.", show_default=False)] = None,
    strategy: Annotated[str, typer.Option(help="See `outlay list strategies`.")] = "facility_location",
    labeled: Annotated[Path | None, typer.Option(help="Text file that names what is labeled already, one a line: ids with --id, else row numbers from 0.", show_default=False)] = None,
    text: Annotated[str, typer.Option(help="Column of the prompts.")] = "prompt",
    id: Annotated[str | None, typer.Option(help="Column of the ids (default: row numbers).", show_default=False)] = None,
    group: Annotated[str | None, typer.Option(help="Column of the groups, for strategies that read them.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides ties and draws.")] = 0,
    mode: Annotated[str, typer.Option(help="Of facility location: auto, exact, two_stage or cells.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; they never change the answer (default: those of BLAS).", show_default=False)] = None,
    keep_embeddings: Annotated[Path | None, typer.Option(metavar="E.npy", help="Write the embeddings that --model computed, for the next time.", show_default=False)] = None,
    executor: Annotated[str | None, typer.Option(help="With --model: have a Ray cluster read the prompts, e.g. 'ray(num_gpus=1)'.", show_default=False)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Choose k prompts of a pool once, without a campaign.

    Example: outlay select prompts.jsonl --embeddings prompts.npy --k 500 --out chosen.jsonl

    Or: outlay select prompts.csv --text question --model smollm2 --strategy k_center --k 100 --out chosen.csv
    """
    from . import registry
    from .acquisition import alone
    from .measure.words import word_numbers
    from .pools import check, pool_of
    from .pools.files import FilePool
    from .types import POOL_SIGNALS

    if out.suffix not in ENDINGS:
        raise ConfigError(f"--out {out}: unknown ending '{out.suffix}'; use one of {', '.join(ENDINGS)}")
    if (embeddings is None) == (model is None):
        raise ConfigError("give either --embeddings E.npy or --model M: where the embeddings come from")
    if keep_embeddings is not None and not model:
        raise ConfigError("--keep-embeddings is for --model: with --embeddings they are in a file already")
    files = {"the pool": pool, "--embeddings": embeddings, "--labeled": labeled, "--out": out}
    for option, written in (("--out", out), ("--keep-embeddings", keep_embeddings)):
        for name, given in files.items():
            if written is not None and given is not None and name != option and written.resolve() == given.resolve():
                raise ConfigError(f"{option} {written} is {name}, which would be lost; write to another file")
    needs = registry.card("strategy", registry.parse(strategy)[0]).needs
    if embeddings is not None and (more := sorted(needs - POOL_SIGNALS - {"embedding"})):
        raise ConfigError(f"strategy {strategy} also needs {', '.join(more)}, which a model computes: give --model M in the place of --embeddings")
    if executor and not model:
        raise ConfigError("--executor is for --model: with --embeddings there is nothing to compute elsewhere")
    table = FilePool(path=pool, text=text, response=None, group=group, id=id)()
    if not table.num_rows:
        raise DataError(f"{pool}: there is no prompt in it")
    prompts = pool_of(pool.name, check(str(pool), table) if id is not None else table)
    say = _silent if quiet else Lines()
    drafts = out.with_name(f".{out.name}.shards")
    asked = needs - POOL_SIGNALS | {"embedding"}
    signals = _signals(asked, model, prompts, threads, say, drafts, executor) if model else {"embedding": load(embeddings, len(prompts), pool)}
    if "words" in needs:
        signals["words"] = word_numbers(prompts.texts)
    if keep_embeddings is not None:
        _save(signals["embedding"], keep_embeddings)
    done = _labeled(labeled, prompts, by_id=id is not None)
    found = alone.select(
        signals.pop("embedding"), k, strategy=strategy, labeled=done, rng=seed, signals=signals, groups=prompts.groups, mode=mode, threads=threads, progress=say
    )  # fmt: skip
    rows = _table(found, prompts, by_id=id is not None)
    _write(rows, out)
    shutil.rmtree(drafts, ignore_errors=True)
    typer.echo(f"{strategy} chose {k} of {len(prompts)} prompts ({len(done)} labeled already){f' in mode {found.mode}' if found.mode else ''}: {out}")
    if found.objective is not None and found.bound is not None:
        if strategy.startswith("k_center"):
            typer.echo(f"every prompt is within {found.objective:.4f} of a chosen or labeled one; no choice of {k} comes below {found.bound:.4f}")
        else:
            about = "about " if found.mode == "cells" else ""
            typer.echo(f"objective {found.objective:.6g}; no choice of {k} exceeds {about}{found.bound:.6g}: this one reaches {about}{found.objective / found.bound if found.bound else 1:.1%} of the best or more")


def load(path: Path, rows: int, pool: Path) -> Floats:
    """The array of a .npy file, memory-mapped. DataError if it is none, or has not one row a prompt."""
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"embeddings {path}: there is no such file") from None
    except (ValueError, EOFError, OSError, OverflowError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile):  # what NumPy raises for broken headers
        raise DataError(f"embeddings {path} is not a .npy file of numbers, or cannot be read; write it with numpy.save") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f" or array.dtype.itemsize not in (2, 4, 8):
        shape = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise DataError(f"embeddings {path}: {shape} where (rows, dimensions) of float16 or float32 are expected")
    if len(array) != rows:
        raise DataError(f"embeddings {path} has {len(array)} rows, {pool} has {rows} prompts; they must be the same prompts in the same order")
    return array


def _signals(needs: frozenset[str], model: str, pool: Pool, threads: int | None, say: Progress, drafts: Path, executor: str | None) -> dict[str, np.ndarray]:
    """These signals, computed a shard at a time; the shards stay in `drafts`, for the same command after a kill."""
    import numpy as np

    from . import registry, shards
    from .engine.load import digest
    from .engine.runtime import Runtime
    from .types import Model

    scorer = registry.build("scorer", {"use": "llm"}, runtime=Runtime(threads=threads or 1))
    done: list[int] = []
    with contextlib.ExitStack() as stack:
        score, each = scorer, map
        if executor:
            away = stack.enter_context(_ray(executor).away())
            score, each = away.scorer(scorer), away.each

        def read(part: Pool) -> Signals:
            found = score(Model(model), part, needs, seed=0)
            done.append(len(part))
            say("prompts read by the model", sum(done), len(pool))
            return found

        key = f"{digest(model)} {scorer} {sorted(needs)}"
        parts = [part.columns for _, part in shards.scored(drafts, pool, np.arange(len(pool)), SHARD, read, key=key, each=each)]
    return {name: np.concatenate([part[name] for part in parts]) for name in needs}


def _ray(spec: str) -> Any:
    """The executor ray, the only one by which a selection goes elsewhere."""
    from . import registry

    if registry.parse(spec)[0] != "ray":
        raise ConfigError(f"--executor {spec}: a selection runs in this process, or on a Ray cluster with --executor ray")
    return registry.build("executor", spec)


def _save(array: Floats, path: Path) -> None:
    import io

    import numpy as np

    from .store import write_atomic

    raw = io.BytesIO()
    np.save(raw, array, allow_pickle=False)
    write_atomic(path, raw.getvalue())


def _labeled(path: Path | None, pool: Pool, *, by_id: bool) -> Indices:
    import numpy as np

    if path is None:
        return np.empty(0, dtype=np.int64)
    if not path.is_file():
        raise DataError(f"labeled {path}: there is no such file")
    try:
        lines = [line.removesuffix("\r") for line in path.read_bytes().decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as bad:
        raise DataError(f"labeled {path}: byte {bad.start} is not UTF-8; save the file as UTF-8") from None
    if by_id:
        known = set(pool.ids)
        return np.unique(pool.rows_of(line if line in known else line.strip() for line in lines if line in known or line.strip()))
    names = [line.strip() for line in lines if line.strip()]
    for name in names:
        if not re.fullmatch("-?[0-9]{1,18}", name):
            raise DataError(f"labeled {path}: '{name[:60]}' is no row number; if these are ids, name their column with --id")
    return np.unique(np.array([int(name) for name in names], dtype=np.int64))


def _table(found: Selected, pool: Pool, *, by_id: bool) -> Iterator[dict[str, Any]]:
    """One row a pick: rank, row, id (if the pool has some), prompt, and what is known of it."""
    names = pool.ids if by_id else None
    represents, examples = found.represents, found.examples(EXAMPLES)
    for rank, (row, prompt) in enumerate(zip(found.rows.tolist(), pool.at(found.rows), strict=True)):
        out: dict[str, Any] = {"rank": rank + 1, "row": row}
        out |= {"id": prompt.id} if names else {}
        out["prompt"] = prompt.text
        out |= {"score": float(found.scores[rank])} if found.scores is not None else {}
        if represents is not None and examples is not None:
            out |= {"represents": int(represents[rank]), "examples": [names[r] if names else r for r in examples[rank].tolist()]}
        yield out


def _write(rows: Iterator[dict[str, Any]], path: Path) -> None:
    import csv
    import io

    from .store import write_atomic

    table = list(rows)
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(table), sink)
        write_atomic(path, sink.getvalue())
        return
    if path.suffix == ".jsonl":
        write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table).encode())
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, table[0].keys())
    writer.writeheader()
    writer.writerows({key: " ".join(map(str, value)) if isinstance(value, list) else value for key, value in row.items()} for row in table)
    write_atomic(path, text.getvalue().encode())


def _silent(what: str, done: int, total: int) -> None:
    """No progress."""


class Lines:
    """Progress on stderr: a line that renews itself on a terminal, elsewhere a line every ten seconds."""

    def __init__(self) -> None:
        self.last, self.begin = 0.0, time.monotonic()
        self.live = sys.stderr.isatty()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic() - self.begin
        if now - self.last >= (0.2 if self.live else 10):
            self.last = now
            print(f"{now:6.0f} s  {what}: {done} of {total}", end="\r\033[K" if self.live else "\n", file=sys.stderr, flush=True)
