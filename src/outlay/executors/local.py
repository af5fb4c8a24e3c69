"""Serial and process-pool executors for one machine. Equal bytes: the work fixes threads and minibatch sizes, not the executor."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context

from ..errors import OutlayError
from ..registry import register
from ..types import R, T


@register("executor", "serial")
@dataclass(frozen=True, kw_only=True)
class Serial:
    """One after another, in this process."""

    workers: int | None = None

    def map(self, fn: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Results in the order of the items."""
        return map(fn, items)


def _die_with_parent(parent: int) -> None:
    """A killed driver must not leave workers behind that go on buying (Linux; elsewhere the campaign lock keeps them apart)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)


@register("executor", "processes")
@dataclass(frozen=True, kw_only=True)
class Processes:
    """A pool of `workers` processes on this machine (None: one per core; a study on a GPU sets one)."""

    workers: int | None = None

    def map(self, fn: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Results in the order of the items. OutlayError if a worker dies."""
        count = min(self.workers or os.cpu_count() or 1, len(items))
        if count < 2:
            yield from map(fn, items)
            return
        pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_die_with_parent, initargs=(os.getpid(),))
        try:
            yield from pool.map(fn, items)
        except BrokenProcessPool:
            raise OutlayError(f"a worker process died (out of memory, perhaps); run the same command again to resume, with fewer workers (now {count})") from None
        except BaseException:  # an error or Ctrl-C: a stage that is cut short is done again on resume
            for child in active_children():
                child.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
