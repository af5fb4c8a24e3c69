"""Choosing rows of a pool against the libraries that people would use instead: one thread, CPU seconds, ours and the peer in turns.

    python benchmarks/selection.py [--quick] [--case NAME ...] [--repeats N] [--json FILE] [--embeddings E.npy]

Install benchmarks/requirements.txt. Every repetition of an arm runs in a process of its own, which first loads the data and compiles or
loads what can be kept (apricot compiles a kernel in every fit, which counts); elapsed time and greatest memory are of that process. The pool
is made here: clusters whose sizes fall as Zipf says, a direction that all rows share, one row in twenty nearly a duplicate of another, 576
dimensions; a tenth is chosen. `value` is the facility location of our choice, computed apart from all arms, as a share of a reference's.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
from _common import Arm, Timing, interleaved_apart, row, show

SLAB = 4096
NEIGHBOURS = 64  # of faiss
DRIFT = 0.3  # what a retrained model adds to a row, as a share of the typical length of a row minus the mean


# -- the pool --------------------------------------------------------------------------------------------------------------


def make_pool(path: Path, n: int, d: int = 576, *, half: bool = False, drift: float = 0.0) -> Path:
    """Write n rows as a .npy file, a slab at a time. `drift`: the same rows, each moved by so much in a direction of its own."""
    rng = np.random.default_rng(n)
    clusters = max(8, n // 100)
    centres = rng.standard_normal((clusters, d), dtype=np.float32)
    common = 2 * rng.standard_normal(d, dtype=np.float32)
    width = rng.uniform(0.5, 1.5, clusters).astype(np.float32)
    share = 1 / np.arange(1, clusters + 1)
    of = rng.choice(clusters, n, p=share / share.sum())
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16 if half else np.float32, shape=(n, d))
    for start in range(0, n, SLAB):
        which = of[start : start + SLAB]
        part = common + centres[which] + width[which, None] * rng.standard_normal((len(which), d), dtype=np.float32)
        near = rng.choice(len(which), len(which) // 20, replace=False)
        part[near] = part[rng.integers(len(which), size=len(near))] + 0.02 * rng.standard_normal((len(near), d), dtype=np.float32)
        if drift:
            part += drift * 1.4 * np.random.default_rng((n, start)).standard_normal(part.shape, dtype=np.float32)
        out[start : start + SLAB] = part
    out.flush()
    return path


def unit(path: Path) -> np.ndarray:
    x = np.load(path).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def value(path: Path, picks: np.ndarray, given: np.ndarray | None = None) -> float:
    """Facility location of these rows, by plain matrix products; above that of `given` rows, if there are some."""
    x, total = unit(path), 0.0
    picks = np.asarray(picks)
    for start in range(0, len(x), SLAB):
        best = np.maximum(_closest(x[start : start + SLAB], x[picks]), 0)
        total += best.sum(dtype=np.float64)
        if given is not None:
            floor = np.maximum(_closest(x[start : start + SLAB], x[given]), 0)
            total += (np.maximum(floor, best) - floor - best).sum(dtype=np.float64)
    return total


def _closest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    best = np.full(len(rows), -np.inf, dtype=np.float32)
    for first in range(0, len(centres), SLAB):
        np.maximum(best, (rows @ centres[first : first + SLAB].T).max(axis=1), out=best)
    return best


# -- ours: prepare(**options) -> what is timed --------------------------------------------------------------------------------


def _warm() -> None:
    """Load the compiled loops."""
    from outlay import select

    small = np.random.default_rng(0).standard_normal((6000, 16), dtype=np.float32)
    for mode in ("two_stage", "cells"):
        select(small, 60, mode=mode, labeled=[3], threads=1)
    for strategy in ("k_center", "k_means_pp"):
        select(small, 60, strategy=strategy)


def ours(path: Path, k: int, threads: int = 1, mapped: bool = False, **options: Any) -> Callable[[], np.ndarray]:
    from outlay import select

    _warm()
    x = np.load(path, mmap_mode="r" if mapped else None)
    return lambda: select(x, k, threads=threads, **options).rows


def ours_next(path: Path, k: int, bought: np.ndarray, moved: Path | None = None) -> Callable[[], np.ndarray]:
    """A round after the first; what the first one left is there already."""
    from outlay.coverage import rounds

    x = np.load(path)
    y = np.load(moved) if moved else x
    state = rounds.start(x, threads=1)
    left = np.setdiff1d(np.arange(len(x)), bought)
    state.moved(x + np.float32(1e-3), chosen=bought).next(1, candidates=left, chosen=bought)  # loads the compiled loops
    return lambda: state.moved(y, chosen=bought).next(k, candidates=left, chosen=bought).picks


def products(path: Path) -> Callable[[], None]:
    """The matrix products of the pairs of blocks that mode "cells" visits, and nothing else."""
    from outlay import select
    from outlay.coverage import pairs
    from outlay.coverage.parallel import workers

    seen: list[tuple] = []

    def listen(kernel: Any, cover: Any, sells: Any, cuts: Any, visits: Any, *more: Any) -> Any:
        seen.append((kernel.points, cuts, visits))
        return collect(kernel, cover, sells, cuts, visits, *more)

    collect, pairs.collect = pairs.collect, listen
    x = np.load(path)
    select(x, len(x) // 10, mode="cells", threads=1)
    points, cuts, visits = seen[-1]

    def multiply() -> None:
        with workers(1):
            for a, b in visits:
                points[cuts[a] : cuts[a + 1]] @ points[cuts[b] : cuts[b + 1]].T

    return multiply


# -- the peers ----------------------------------------------------------------------------------------------------------------


def apricot(path: Path, k: int, bought: np.ndarray | None = None) -> Callable[[], np.ndarray]:
    """Dense, lazy; given the rows that are bought."""
    from apricot import FacilityLocationSelection

    x = unit(path)

    def fit() -> np.ndarray:
        table = np.maximum(x @ x.T, 0)
        return np.asarray(FacilityLocationSelection(k, metric="precomputed", optimizer="lazy", initial_subset=bought).fit(table).ranking)

    return fit


def faiss_apricot(path: Path, k: int, cells: bool) -> Callable[[], np.ndarray]:
    """The 64 nearest neighbours by faiss, flat or IVF, symmetrised, then apricot on them."""
    import faiss
    import scipy.sparse as sparse
    from apricot import FacilityLocationSelection

    faiss.omp_set_num_threads(1)
    x = unit(path)

    def fit() -> np.ndarray:
        n, d = x.shape
        if cells:
            index = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, int(np.sqrt(n)), faiss.METRIC_INNER_PRODUCT)
            index.train(x)
            index.nprobe = 8
        else:
            index = faiss.IndexFlatIP(d)
        index.add(x)
        alike, near = index.search(x, NEIGHBOURS)
        there = near.ravel() >= 0
        graph = sparse.csr_matrix((np.maximum(alike.ravel()[there], 0), (np.repeat(np.arange(n), NEIGHBOURS)[there], near.ravel()[there])), shape=(n, n))
        return np.asarray(FacilityLocationSelection(k, metric="precomputed", optimizer="lazy").fit(graph.maximum(graph.T).tocsr()).ranking)

    return fit


def mundig(path: Path, k: int) -> Callable[[], np.ndarray]:
    from lightly_mundig import Selection

    x = unit(path).tolist()

    def fit() -> np.ndarray:
        selection = Selection()
        selection.add_diversifying_strategy(x, 1.0)
        return np.asarray(selection.run_selection([0], len(x), k))

    return fit


def voronoi(path: Path, k: int) -> Callable[[], np.ndarray]:
    from skmatter.sample_selection import VoronoiFPS

    x = unit(path)
    return lambda: np.asarray(VoronoiFPS(n_to_select=k, initialize=0).fit(x).selected_idx_)


def scikit(path: Path, k: int) -> Callable[[], np.ndarray]:
    from sklearn.cluster import kmeans_plusplus

    x = unit(path)
    return lambda: kmeans_plusplus(x, k, n_local_trials=1, random_state=0)[1]


# -- the cases ------------------------------------------------------------------------------------------------------------------


def facility_20k(folder: Path, repeats: int, *, d: int = 576, half: bool = False, name: str = "facility location 20k", n: int = 20_000, path: Path | None = None) -> list[dict]:
    """Against apricot's dense table; the value against our exact greedy, whose picks are plain greedy's."""
    path = path or make_pool(folder / "pool.npy", n, d, half=half)
    k = n // 10
    arms = {mode: Arm(ours, {"path": path, "k": k, "mode": mode}) for mode in ("cells", "two_stage")}
    found = interleaved_apart(arms | {"apricot, dense": Arm(apricot, {"path": path, "k": k})}, repeats)
    exact = interleaved_apart({"exact": Arm(ours, {"path": path, "k": k, "mode": "exact"})}, 1)["exact"]
    best = value(path, exact.result)
    peer = found["apricot, dense"]
    share = {mode: round(value(path, found[mode].result) / best, 6) for mode in (*arms, "apricot, dense")}
    more = {"peer_tool": "apricot dense", "peer_value": share["apricot, dense"], "n": n, "d": np.load(path, mmap_mode="r").shape[1]}
    asked = name == "facility location 20k"
    return [
        row(f"{name}, >= 0.9995", found["cells"], peer, 14 if asked else None, value=share["cells"], value_goal=0.9995, mode="cells", gib_goal=0.5, **more),
        row(f"{name}, >= 0.9999", found["two_stage"], peer, 5.5 if asked else None, value=share["two_stage"], value_goal=0.9999, mode="two_stage", **more),
        row(f"{name}, exact", exact, replace(peer, seconds=peer.seconds[:1]), None, value=1.0, mode="exact", **more),
    ]


def facility_50k(folder: Path, repeats: int) -> list[dict]:
    n = 50_000
    path = make_pool(folder / "pool.npy", n)
    arms = {"cells": Arm(ours, {"path": path, "k": n // 10, "mode": "cells"})}
    arms |= {f"faiss {kind} + apricot": Arm(faiss_apricot, {"path": path, "k": n // 10, "cells": kind == "IVF"}) for kind in ("IVF", "flat")}
    found = interleaved_apart(arms, repeats)
    values = {name: value(path, timing.result) for name, timing in found.items()}
    return [
        row(f"facility location 50k, faiss {kind}", found["cells"], found[peer := f"faiss {kind} + apricot"], goal, value=round(values["cells"] / values[peer], 6), value_goal=1.0, gib_goal=0.6, peer_tool=peer, n=n)
        for kind, goal in (("IVF", 5.5), ("flat", 10))
    ]  # fmt: skip


def facility_100k(folder: Path, repeats: int) -> list[dict]:
    """The ratio is that of the matrix products alone to ours: at least 1 / 2.3."""
    n = 100_000
    path = make_pool(folder / "pool.npy", n)
    found = interleaved_apart({"cells": Arm(ours, {"path": path, "k": n // 10, "mode": "cells"}), "its matrix products": Arm(products, {"path": path})}, repeats)
    pairs = interleaved_apart({"two_stage": Arm(ours, {"path": path, "k": n // 10, "mode": "two_stage"})}, 1)["two_stage"]
    share = round(value(path, found["cells"].result) / value(path, pairs.result), 6)
    return [
        row("facility location 100k", found["cells"], found["its matrix products"], 1 / 2.3, value=share, value_goal=0.9997, gib_goal=1.2, peer_tool="the matrix products of the pairs visited, alone", n=n),
        row("facility location 100k, all pairs", replace(found["cells"], seconds=found["cells"].seconds[:1]), pairs, None, value=share, peer_tool="our two_stage", n=n),
    ]  # fmt: skip


def facility_1m(folder: Path, repeats: int) -> list[dict]:
    """Two threads; the ratio is an hour over the elapsed time."""
    n = 1_000_000
    path = make_pool(folder / "pool.npy", n, half=True)
    found = interleaved_apart({"cells, two threads": Arm(ours, {"path": path, "k": n // 10, "mode": "cells", "threads": 2, "mapped": True})}, 1)["cells, two threads"]
    hour = Timing((3600.0,), None, (3600.0,), (8.0,))
    return [row("facility location 1M (elapsed)", replace(found, seconds=found.elapsed), hour, 1.0, cpu=round(found.median, 1), gib_goal=8, peer_tool="an hour", n=n)]


def k_center_50k(folder: Path, repeats: int) -> list[dict]:
    n = 50_000
    path = make_pool(folder / "pool.npy", n)
    arms = {"ours": Arm(ours, {"path": path, "k": n // 10, "strategy": "k_center"}), "mundig": Arm(mundig, {"path": path, "k": n // 10}), "skmatter": Arm(voronoi, {"path": path, "k": n // 10})}
    found = interleaved_apart(arms, repeats)
    radius = {name: round(float(np.sqrt(max(0.0, 2 - 2 * min(_closest(unit(path)[s : s + SLAB], unit(path)[t.result]).min() for s in range(0, n, SLAB))))), 4) for name, t in found.items()}
    return [row(f"k-center 50k, {peer}", found["ours"], found[peer], 8.5, radius=radius["ours"], peer_radius=radius[peer], peer_tool=peer, n=n) for peer in ("mundig", "skmatter")]


def k_means_pp_10k(folder: Path, repeats: int) -> list[dict]:
    n = 10_000
    path = make_pool(folder / "pool.npy", n)
    found = interleaved_apart({"ours": Arm(ours, {"path": path, "k": n // 10, "strategy": "k_means_pp"}), "scikit-learn": Arm(scikit, {"path": path, "k": n // 10})}, repeats)
    far = {name: _spread(path, t.result) for name, t in found.items()}
    return [row("k-means++ 10k", found["ours"], found["scikit-learn"], 25, potential=far["ours"], peer_potential=far["scikit-learn"], peer_tool="scikit-learn, one trial", n=n)]


def _spread(path: Path, picks: np.ndarray) -> float:
    """The mean squared distance to the nearest pick, which D^2 sampling is for."""
    x = unit(path)
    return round(float(np.mean(2 - 2 * _closest(x, x[picks]))), 4)


def rounds_10k(folder: Path, repeats: int) -> list[dict]:
    """The second of two rounds of 500 each; apricot starts afresh, given the first."""
    n = 10_000
    path, moved = make_pool(folder / "pool.npy", n), make_pool(folder / "moved.npy", n, drift=DRIFT)
    first = interleaved_apart({"first round": Arm(ours, {"path": path, "k": n // 20, "mode": "two_stage"})}, 1)["first round"].result
    given = {"path": path, "k": n // 20, "bought": first}
    peers = {"apricot": Arm(apricot, given), "apricot, retrained": Arm(apricot, given | {"path": moved})}
    found = interleaved_apart({"same": Arm(ours_next, given), "retrained": Arm(ours_next, given | {"moved": moved})} | peers, repeats)
    cosine = round(float(np.einsum("nd,nd->n", unit(path), unit(moved)).mean()), 3)
    gain = {name: value(p, found[name].result, first) for name, p in (("same", path), ("retrained", moved), ("apricot", path), ("apricot, retrained", moved))}
    return [
        row("next round 10k, same embeddings", found["same"], found["apricot"], 100, value=round(gain["same"] / gain["apricot"], 5), peer_tool="apricot dense, afresh", n=n),
        row("next round 10k, retrained", found["retrained"], found["apricot, retrained"], 30, value=round(gain["retrained"] / gain["apricot, retrained"], 5), value_goal=0.998, cosine=cosine, peer_tool="apricot dense, afresh", n=n),
    ]  # fmt: skip


def threads(folder: Path, repeats: int) -> list[dict]:
    """Elapsed time on two threads; it needs two free cores."""
    n = 50_000
    path = make_pool(folder / "pool.npy", n)
    rows = []
    for mode, goal in (("cells", 1.6), ("two_stage", 1.6)):
        found = interleaved_apart({f"{mode}, {t}": Arm(ours, {"path": path, "k": n // 10, "mode": mode, "threads": t}) for t in (1, 2)}, repeats)
        one, two = (replace(t, seconds=t.elapsed) for t in found.values())
        if not np.array_equal(one.result, two.result):
            sys.exit(f"{mode}: two threads chose other rows than one")
        rows.append(row(f"two threads, {mode} 50k (elapsed)", two, one, goal, peer_tool="one thread", n=n))
    return rows


def wide(folder: Path, repeats: int) -> list[dict]:
    return facility_20k(folder, repeats, d=2048, name="facility location 20k, d 2048")


def half(folder: Path, repeats: int) -> list[dict]:
    return facility_20k(folder, repeats, half=True, name="facility location 20k, float16")


CASES: dict[str, Callable[[Path, int], list[dict]]] = {
    "facility-20k": facility_20k, "k-means++-10k": k_means_pp_10k, "rounds-10k": rounds_10k,
    "facility-50k": facility_50k, "k-center-50k": k_center_50k, "facility-100k": facility_100k, "threads": threads, "d-2048": wide, "float16": half, "facility-1m": facility_1m,
}  # fmt: skip
QUICK = ("facility-20k", "k-means++-10k", "rounds-10k")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 20,000 rows; within five minutes")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this; may be given several times (default: all but facility-1m)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--embeddings", type=Path, metavar="E.npy", help="facility location on these rows instead, against apricot dense")
    args = parser.parse_args()
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        if args.embeddings:
            n = len(np.load(args.embeddings, mmap_mode="r"))
            rows = facility_20k(Path(folder), args.repeats, name=f"facility location, {n} rows of {args.embeddings.name}", n=n, path=args.embeddings)
            show(rows, args.json)
            return
        for name in args.case or (QUICK if args.quick else [c for c in CASES if c != "facility-1m"]):
            print(name, flush=True)
            rows += CASES[name](Path(folder), args.repeats)
            show(rows, args.json)


if __name__ == "__main__":
    main()
