"""Ray: the stages of a study on the devices of a cluster.

Calls are Ray tasks: Ray finds room for them, moves bytes, notices what dies and makes it again. Here is only which calls are made, and what
their failures mean.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ..errors import ConfigError, OutlayError
from ..registry import register
from ..types import R, T
from .away import Away


@register("executor", "ray")
@dataclass(frozen=True, kw_only=True)
class Ray:
    """Processes on a Ray cluster (pip install 'outlay[ray]'); docs/cluster.md says how.

    unit: with "cells" a call is a whole campaign or shared stage, and every node must see the run directory; with "stages" campaigns run
    in this process, which alone has the run directory, and a call is one shard to score, one training or one evaluation: one campaign is
    then spread over all devices. address: of the cluster; None: what RAY_ADDRESS names, else one that runs on this machine, else
    a new one here. num_cpus, num_gpus (0.25: four processes share a device), memory_gib: what Ray reserves for each process. at_once: how many
    calls at a time; None: as many as the cluster has room for at the start. retries: how often a call whose process was lost is made again.
    """

    unit: Literal["cells", "stages"] = "cells"
    address: str | None = None
    num_cpus: float = 1
    num_gpus: float = 0
    memory_gib: float | None = None
    at_once: int | None = None
    retries: int = 3

    def __post_init__(self) -> None:
        for name, least in {"num_cpus": 0, "num_gpus": 0, "memory_gib": 0, "at_once": 1, "retries": 0}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"executor 'ray', option '{name}' = {value}: it must be at least {least}")
        if self.num_gpus > 1 and self.num_gpus != int(self.num_gpus):
            raise ConfigError(f"executor 'ray', option 'num_gpus' = {self.num_gpus}: a process has a fraction of one device or whole devices")
        if not self.num_cpus and not self.num_gpus:
            raise ConfigError("executor 'ray': num_cpus and num_gpus are both 0, so any number of processes would fit; set one")

    def map(self, fn: Callable[..., R], items: Sequence[T]) -> Iterator[R]:
        """Results in the order of the items. With unit "stages" `fn` also takes `away`, by which it has parts called elsewhere.

        Raises what `fn` raises; ConfigError without Ray or a cluster that has room; OutlayError for a call that was lost too often.
        """
        if not items:
            return
        if self.unit == "cells":
            with self._crew(len(items)) as crew:
                yield from crew.map(lambda item: crew.call(f"{item}", fn, item), items)
        else:
            with self.away() as away:
                yield from away.each(partial(fn, away=away), items)

    @contextmanager
    def away(self) -> Iterator[Away]:
        """To have single parts called elsewhere; the processes end with the block."""
        with self._crew() as crew:
            yield Away(crew)

    @contextmanager
    def _crew(self, most: int | None = None) -> Iterator[Crew]:
        crew = Crew(self, most)
        try:
            yield crew
        except BaseException:
            crew.cancel()
            raise


def _do(fn: Callable[..., R], *args: Any) -> R:
    """What a task does."""
    return fn(*args)


class Crew:
    """Calls as Ray tasks. Ray finds room for them, keeps a process with its loaded models for the next call of this kind, and makes a
    call again whose process or node was lost. `size`: calls at once."""

    def __init__(self, options: Ray, most: int | None) -> None:
        self.ray, self.retries = _connected(options), options.retries
        room = options.at_once or _room(self.ray.nodes(), options)
        self.size = min(room, most or room)
        memory = {} if options.memory_gib is None else {"memory": int(options.memory_gib * 2**30)}
        self.task = self.ray.remote(num_cpus=options.num_cpus, num_gpus=options.num_gpus, max_calls=0, max_retries=options.retries, **memory)(_do)
        self.under_way: set = set()

    def call(self, what: str, fn: Callable[..., R], *args: Any) -> R:
        """`fn(*args)` somewhere on the cluster. `what` names it in errors."""
        call = self.task.remote(fn, *args)
        self.under_way.add(call)
        try:
            return self.ray.get(call)
        except self.ray.exceptions.RayTaskError as bad:  # raised by fn
            if isinstance(bad.cause, OutlayError):
                raise bad.cause from None
            if "failed to import on the worker" in str(bad.cause):
                raise ConfigError(f"a Ray process cannot load Outlay ({str(bad.cause).strip().splitlines()[-1]}); install it, with the extras that the study needs, on every node") from None
            raise
        except self.ray.exceptions.RayError as bad:  # the process, its node or its result is gone
            raise OutlayError(
                f"the Ray process of {what} was lost {self.retries + 1} times (out of memory, perhaps): {_line(bad)}; "
                "give each process more of a node (executor: num_cpus, memory_gib), then run the same command again to resume"
            ) from None
        finally:
            self.under_way.discard(call)

    def map(self, fn: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Results in the order of the items, `size` at once. `fn` runs in threads here, and makes calls."""
        from threadpoolctl import threadpool_limits

        pool = ThreadPoolExecutor(min(self.size, len(items)))
        try:
            with threadpool_limits(1):  # parts that limit BLAS for a while, to give equal bytes, must not undo it for each other
                yield from pool.map(fn, items)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # what still runs after an error is cancelled with the block

    def put(self, value: Any) -> Any:
        """Into the object store; -> a reference, good in arguments."""
        return self.ray.put(value)

    def cancel(self) -> None:
        """End the calls that are under way, and their processes."""
        for call in list(self.under_way):
            self.ray.cancel(call, force=True)


def _line(bad: Exception) -> str:
    return " ".join(str(bad).split())[:300]


def _connected(options: Ray) -> Any:
    """The module ray, connected. What is connected already stays so."""
    try:
        import ray
        import ray.exceptions
    except ImportError as missing:
        raise ConfigError(f"executor 'ray' needs the package ray, which cannot be imported ({missing}); pip install 'outlay[ray]', or use executor: processes") from None
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here reports nothing to Ray's makers
        os.environ.setdefault("RAY_task_oom_retries", str(options.retries))  # Ray would repeat what runs out of memory for ever
        try:
            ray.init(address=options.address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as bad:
            raise ConfigError(f"no Ray cluster can be reached at address {options.address or 'auto'}: {_line(bad)}; start one with: ray start --head") from None
    return ray


def _room(nodes: Sequence[dict], options: Ray) -> int:
    """Processes that the nodes of `ray.nodes()` have room for. ConfigError if there is none for any."""
    asks = {"CPU": options.num_cpus, "GPU": options.num_gpus, "memory": (options.memory_gib or 0) * 2**30}
    room = 0
    for node in nodes:
        if node["Alive"]:
            has = node["Resources"]
            if options.num_gpus > 0 and options.num_gpus < 1:  # a process does not lie across two devices
                by_gpu = int(has.get("GPU", 0)) * int(1 / options.num_gpus + 1e-9)
                room += min([by_gpu, *(int(has.get(name, 0) / n + 1e-9) for name, n in asks.items() if n and name != "GPU")])
            else:
                room += min(int(has.get(name, 0) / n + 1e-9) for name, n in asks.items() if n)
    if not room:
        wanted = ", ".join(f"{n:g} {name}" for name, n in asks.items() if n)
        raise ConfigError(f"executor 'ray': no node of the cluster has {wanted} for a process; ask for less, or set at_once where the cluster grows on demand")
    return room
