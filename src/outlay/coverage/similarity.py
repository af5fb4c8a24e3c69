"""How alike two prompts are: functions of the inner product of their unit rows, in whole levels, a block at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ConfigError, DataError, near
from ..types import Floats, Indices
from .parallel import Map

KERNELS = ("cosine", "rbf")
Similarity = str | Callable[[Floats], Floats]
# Similarities are whole multiples of this. Then sums of them are exact, so that equal prompts have equal gains, lazy and plain
# greedy agree to the last bit, and the rounding of a matrix product does not decide what is bought.
GRAIN = np.float32(2.0**-20)
TOP = 1 << 20  # the level of similarity 1
STRETCH = 1 << 10  # length of the rows of a cosine: inner products are levels then (TOP is its square), to the last bit, since both are powers of two
NARROWEST = 1e-4  # width of "rbf": below, distances are lost in the rounding of float32
CLOSE, ALIKE = 1e-3, 1e-12  # mean squared distances of unit rows: distances are computed otherwise below; all rows count as equal below
ORDINARY = 1e-15, 1e15  # lengths whose squares float32 holds well
SLAB = 4096  # rows that are read at once
PART = 256  # rows that are normalised at once: they stay in the cache


@dataclass(frozen=True, slots=True)
class Kernel:
    """Rows and what is done with their inner products. points (n, d) float32, C-contiguous, of length STRETCH for a cosine, else 1 (for "rbf"
    on rows that lie close together: their deviations from the mean, of mean squared distance 1).

    `scale` (of squared distances) is above 0 for "rbf"; `of` maps an array of inner products to similarities elsewhere; else it is a cosine.
    """

    points: Floats
    squares: Floats
    scale: float = 0.0
    of: Callable[[Floats], Floats] | None = None

    def __len__(self) -> int:
        return len(self.points)

    def part(self, rows: Indices) -> Kernel:
        """The same similarity of these rows alone."""
        return replace(self, points=self.points[rows], squares=self.squares[rows] if self.scale else self.squares)

    def block(self, a: slice | Indices, b: slice | Indices, out: Floats | None = None) -> Floats:
        """Similarities of rows a to rows b in levels that are not rounded yet. -> (a, b) float32; `out`, of this shape, may be used for it."""
        block = np.matmul(self.points[a], self.points[b].T, out=out)
        return self._finish(block, self.squares[a, None], self.squares[b]) if self.scale else self._finish(block)

    def of_inner(self, inner: Floats, a: Indices, b: Indices) -> Floats:
        """Similarities of these pairs of rows from their inner products, as levels that are not rounded yet. Changes `inner`. All (pairs,)."""
        return self._finish(inner, self.squares[a], self.squares[b]) if self.scale else self._finish(inner)

    def _finish(self, block: Floats, squares_a: Floats | float = 0, squares_b: Floats | float = 0) -> Floats:
        if self.scale:
            block *= 2
            block -= squares_a
            block -= squares_b
            block /= np.float32(self.scale)
            np.minimum(block, 0, out=block)
            np.exp(block, out=block)
        elif self.of is not None:
            block, shape = np.ascontiguousarray(self.of(np.clip(block, -1, 1, out=block)), dtype=np.float32), block.shape
            if block.shape != shape:
                raise ConfigError(f"a similarity maps an array of inner products to an array of the same shape, got {block.shape} for {shape}")
            worst = np.abs(block).max(initial=0)
            if not worst <= 1 + 1e-6:  # also NaN
                raise ConfigError(f"a similarity must map inner products between -1 and 1 to numbers between -1 and 1, got {worst}; divide by its largest value")
        else:
            return block
        block *= np.float32(TOP)
        return block

    def levels(self, a: slice | Indices, b: slice | Indices, out: np.ndarray | None = None) -> np.ndarray:
        """Similarities of rows a to rows b in whole levels. -> (a, b) int32."""
        block = self.block(a, b)
        np.rint(block, out=block)
        if out is None:
            return block.astype(np.int32)
        np.copyto(out, block, casting="unsafe")
        return out


def kernel(embedding: Floats, similarity: Similarity = "cosine", width: float = 0.1, *, rows: Indices | None = None, map_: Map = map) -> Kernel:
    """The similarity of the rows of an embedding of any scale (or of `rows` of it, in their order): "cosine", "rbf" (`width` times the mean squared
    distance over all pairs of unit rows is its scale), or a function of an array of inner products of unit rows, never falling. embedding (n, d)."""
    if not callable(similarity) and similarity not in KERNELS:
        raise ConfigError(f"unknown kernel '{similarity}'; {near(similarity, KERNELS)}")
    points = unit(embedding, rows, length=STRETCH if similarity == "cosine" else 1, map_=map_)
    if callable(similarity):
        return Kernel(points, np.empty(0, dtype=np.float32), of=similarity)
    if similarity == "cosine":
        return Kernel(points, np.empty(0, dtype=np.float32))
    if not NARROWEST <= width < np.inf:
        raise ConfigError(f"the kernel's width is a multiple of the mean squared distance and must be finite and at least {NARROWEST}, got {width}")
    squares = np.einsum("nd,nd->n", points, points)
    mean = points.mean(axis=0, dtype=np.float64)
    spread = 2 * (squares.mean(dtype=np.float64) - mean @ mean)  # mean squared distance over all pairs
    if spread < CLOSE:  # float32 does not tell such distances from inner products of the rows themselves: of their deviations, then
        for start in range(0, len(points), SLAB):
            points[start : start + SLAB] -= mean
        squares = np.einsum("nd,nd->n", points, points)
        spread = 2 * squares.mean(dtype=np.float64)
        if spread < ALIKE:
            return Kernel(np.zeros_like(points), np.zeros_like(squares), scale=1.0)
        points /= np.float32(np.sqrt(spread))
        squares, spread = np.einsum("nd,nd->n", points, points), 1.0
    return Kernel(points, squares, scale=width * spread)


def unit(embedding: Floats, rows: Indices | None = None, *, length: int = 1, map_: Map = map) -> Floats:
    """Rows of this length (a power of two, which changes no digit) in float32; zero rows stay zero, similar to nothing. (n, d) -> (n, d); or `rows` of it only, in their order."""
    embedding = np.asarray(embedding)
    points = np.empty((len(embedding) if rows is None else len(rows), embedding.shape[1]), dtype=np.float32)

    def slab(first: int) -> None:
        for start in range(first, min(first + SLAB, len(points)), PART):
            at = slice(start, start + PART)
            given = embedding[at if rows is None else rows[at]]
            part = given.astype(np.float32, copy=False)
            norm = np.sqrt(np.einsum("nd,nd->n", part, part))[:, None]
            odd = np.flatnonzero(~((norm > ORDINARY[0]) & (norm < ORDINARY[1])))
            if len(odd):
                exact = given[odd].astype(np.float64)
                largest = np.abs(exact).max(axis=1, keepdims=True)
                part = np.array(part)
                part[odd] = exact / np.where(largest > 0, largest, 1)
                norm[odd] = np.sqrt(np.einsum("nd,nd->n", part[odd], part[odd]))[:, None]
            norm[norm == 0] = 1
            norm /= np.float32(length)
            np.divide(part, norm, out=points[at])

    list(map_(slab, range(0, len(points), SLAB)))
    return points


def check(embedding: Floats) -> None:
    """DataError that names the first row that is not made of finite numbers, or what is wrong with the shape. embedding (n, d)."""
    if embedding.ndim != 2 or embedding.dtype.kind != "f" or not embedding.size:
        raise DataError(f"embeddings must be floating-point numbers of shape (rows, dimensions), got {embedding.dtype} of shape {embedding.shape}")
    for start in range(0, len(embedding), SLAB):
        part = embedding[start : start + SLAB]
        fine = np.isfinite(part) if part.dtype.itemsize <= 4 else np.abs(part) <= np.finfo(np.float32).max
        bad = ~fine.all(axis=1)
        if bad.any():
            row = start + int(bad.argmax())
            value = embedding[row][~fine[bad.argmax()]][0]
            beyond = ", more than float32 holds" if np.isfinite(value) else ""
            raise DataError(f"the embedding of row {row} has a value that is {value}{beyond}; compute it again or take the row out")
