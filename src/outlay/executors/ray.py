"""Ray: the stages of a study on the devices of a cluster.

Ray starts the processes (actors), finds room for them, moves bytes and notices what dies. Here are the calls: each waits for a process
that is free, and is made again on another one if its process is lost. A process keeps its models in memory from one call to the next.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Thread
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
    a new one here. num_cpus, num_gpus (0.25: four processes share a device), memory_gib: what Ray reserves for each process. actors: how many
    processes; None: as many as the cluster has room for at the start. retries: how often a call whose process was lost is made again.
    """

    unit: Literal["cells", "stages"] = "cells"
    address: str | None = None
    num_cpus: float = 1
    num_gpus: float = 0
    memory_gib: float | None = None
    actors: int | None = None
    retries: int = 3

    def __post_init__(self) -> None:
        for name, least in {"num_cpus": 0, "num_gpus": 0, "memory_gib": 0, "actors": 1, "retries": 0}.items():
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
            crew.close(at_once=True)
            raise
        crew.close()


class _Process:
    """What an actor does: calls, one after another."""

    def ready(self) -> None:
        """Answered as soon as the process is there."""

    def do(self, fn: Callable[..., R], *args: Any) -> R:
        return fn(*args)


class Crew:
    """The processes of one `Ray`. `idle` holds those that are free, the exception of one that died as it started, and at the end None."""

    def __init__(self, options: Ray, most: int | None) -> None:
        self.ray, self.retries = _connected(options), options.retries
        room = options.actors or _room(self.ray.nodes(), options)
        self.size = min(room, most or room)
        memory = {} if options.memory_gib is None else {"memory": int(options.memory_gib * 2**30)}
        # No restarts by Ray: a restarted actor waits for room while others stand idle, and its calls with it.
        self.kind = self.ray.remote(_Process).options(num_cpus=options.num_cpus, num_gpus=options.num_gpus, max_restarts=0, max_task_retries=0, **memory)
        self.idle: SimpleQueue = SimpleQueue()
        self.alive: set = set()
        self.stillborn, self.closed = 0, False
        for _ in range(self.size):
            self._hire()

    def _hire(self) -> None:
        """Ask for a process; it becomes idle when it is there, which may be never: nobody waits for this one."""
        actor = self.kind.remote()
        self.alive.add(actor)

        def wait() -> None:
            try:
                self.ray.get(actor.ready.remote())
            except Exception as bad:
                self.alive.discard(actor)
                self.idle.put(bad)
            else:
                self.idle.put(actor)
                if self.closed:
                    self._end(actor)

        Thread(target=wait, daemon=True).start()

    def _free(self) -> Any:
        """A living process that is free, as soon as there is one."""
        while True:
            actor = self.idle.get()
            if self.closed:
                self.idle.put(None)  # for the next one who waits
                raise OutlayError("stopped; the same command goes on from here")
            if isinstance(actor, Exception):
                self.stillborn += 1
                if self.stillborn > self.size + self.retries:
                    raise OutlayError(f"{self.stillborn} Ray processes died as they started: {_line(actor)}; are Outlay and its extras installed on every node?")
                self._hire()
                continue
            try:
                self.ray.get(actor.ready.remote())  # it may have gone with its node while it was free: no loss to any call
                return actor
            except self.ray.exceptions.RayError:
                self._replace(actor)

    def call(self, what: str, fn: Callable[..., R], *args: Any) -> R:
        """`fn(*args)` in a process that is free. `what` names it in errors."""
        for number in range(self.retries + 1):
            actor = self._free()
            try:
                result = self.ray.get(actor.do.remote(fn, *args))
            except self.ray.exceptions.RayTaskError as bad:  # raised by fn
                self.idle.put(actor)
                if isinstance(bad.cause, OutlayError):
                    raise bad.cause from None
                raise
            except self.ray.exceptions.RayError as bad:  # the process, its node or its result is gone
                self._replace(actor)
                if number == self.retries:
                    raise OutlayError(
                        f"the Ray process of {what} was lost {number + 1} times (out of memory, perhaps): {_line(bad)}; "
                        "give each process more of a node (executor: num_cpus, memory_gib), then run the same command again to resume"
                    ) from None
            else:
                self.idle.put(actor)
                return result
        raise AssertionError("retries is at least 0")

    def map(self, fn: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Results in the order of the items, as many at once as there are processes. `fn` runs in threads here, and makes calls."""
        from threadpoolctl import threadpool_limits

        pool = ThreadPoolExecutor(min(self.size, len(items)))
        try:
            with threadpool_limits(1):  # parts that limit BLAS for a while, to give equal bytes, must not undo it for each other
                yield from pool.map(fn, items)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # what still runs after an error ends with the crew

    def put(self, value: Any) -> Any:
        """Into the object store; -> a reference, good in arguments."""
        return self.ray.put(value)

    def close(self, *, at_once: bool = False) -> None:
        """End all processes; those at work too, if at once."""
        self.closed = True
        free = set()
        while not self.idle.empty():
            free.add(self.idle.get())
        for actor in list(self.alive):
            self._end(actor, at_once=at_once or actor not in free)  # one that is still to start would come to nothing
        self.idle.put(None)

    def _replace(self, actor: Any) -> None:
        self._end(actor)
        if not self.closed:
            self._hire()

    def _end(self, actor: Any, *, at_once: bool = True) -> None:
        self.alive.discard(actor)
        if at_once:
            self.ray.kill(actor)
        else:
            actor.__ray_terminate__.remote()  # with its atexit handlers: it takes its temporary files with it


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
        raise ConfigError(f"executor 'ray': no node of the cluster has {wanted} for a process; ask for less, or set actors where the cluster grows on demand")
    return room
