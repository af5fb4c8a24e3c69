"""Blocks of work on several threads, with results that do not depend on how many there are.

A block is computed whole by one thread, its matrix products too (BLAS itself gets one thread), and blocks are combined in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

from ..types import R, T

AHEAD = 8  # results a thread that may wait: with fewer, threads wait for a long block before theirs
Progress = Callable[[str, int, int], None]  # what is going on, how much of it is done, of how much


class Map(Protocol):
    def __call__(self, fn: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Results in the order of the items."""


def bundled(map_: Map, fn: Callable[[T], R], items: Iterable[T], size: int = 16) -> Iterator[R]:
    """map_ with several items to a task, where one alone is too short a task."""
    items = list(items)
    for results in map_(lambda start: [fn(item) for item in items[start : start + size]], range(0, len(items), size)):
        yield from results


@contextmanager
def workers(threads: int | None = None) -> Iterator[Map]:
    """An ordered map over so many threads (default: as many as BLAS may use now), within which BLAS has one.

    Few results wait at a time, so that memory is bounded by the blocks in work.
    """
    from threadpoolctl import threadpool_info, threadpool_limits

    if threads is None:
        threads = max((lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"), default=1)
    with threadpool_limits(1, user_api="blas"):
        if threads == 1:
            yield map
            return
        with ThreadPoolExecutor(threads) as pool:

            def ordered(fn: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
                waiting: deque = deque()
                try:
                    for item in items:
                        waiting.append(pool.submit(fn, item))
                        if len(waiting) > AHEAD * threads:
                            yield waiting.popleft().result()
                    while waiting:
                        yield waiting.popleft().result()
                finally:
                    for future in waiting:
                        future.cancel()

            yield ordered
