"""Progress of a study, read off the run directory: how many of its stage files are there. So every executor has it for free."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from . import grid
from .config import StudyConfig
from .proxy import space_path


def stage_files(study: dict) -> list[str]:
    """The files that mark the work of a study: one for each shard, evaluation, trained model."""
    config = StudyConfig.model_validate(study["config"])
    shards = -(-study["pool"]["prompts"] // config.shard)
    files = [f"shared/signals-{g}/shard-{s:05d}.parquet" for g in range(len(study["needs"])) for s in range(shards)]
    files += [space_path(s) for s in range(shards) if config.proxy]
    files += [f"shared/base/evaluation-{name}.parquet" for name in config.evaluators]
    folders = dict.fromkeys(folder for entry in study["campaigns"].values() for folder in entry["folders"])
    for folder in folders:
        files += [f"{folder}/model.json", *(f"{folder}/evaluation-{name}.parquet" for name in config.evaluators)]
    for entry in study["campaigns"].values():
        if config.proxy and grid.live(entry["strategy"], config):
            files += [f"{folder}/proxy-model.json" for folder in entry["folders"][1:]]
    return list(dict.fromkeys(files))


class Progress:
    """A bar on a terminal, a plain line now and then elsewhere, nothing when quiet."""

    def __init__(self, root: Path, study: dict, *, quiet: bool) -> None:
        self.files = [root / f for f in stage_files(study)]
        self.quiet, self.done, self.title = quiet, 0, ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._begin = time.monotonic()

    def stage(self, title: str) -> None:
        """Name what is going on."""
        self.title = title

    def __enter__(self) -> Progress:
        self.missing = [f for f in self.files if not f.exists()]
        self.before = len(self.files) - len(self.missing)
        if self.before and not self.quiet:
            print(f"resuming: {self.before} of {len(self.files)} stages are there already", file=sys.stderr)
        if not self.quiet and self.missing:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _count(self) -> int:
        self.missing = [f for f in self.missing if not f.exists()]
        return len(self.files) - len(self.missing)

    def _watch(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        if not console.is_terminal:
            self._lines()
            return
        columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        with Bar(*columns, console=console) as bar:
            job = bar.add_task("", total=len(self.files), completed=self.before)
            while not self._stop.wait(0.3):
                bar.update(job, completed=self._count(), description=self.title)
            bar.update(job, completed=self._count())

    def _lines(self) -> None:
        said = -1.0
        while not self._stop.wait(1.0):
            count, spent = self._count(), time.monotonic() - self._begin
            if spent - said >= 15 or count == len(self.files):
                new = count - self.before
                left = f", about {spent / new * (len(self.files) - count):.0f} s left" if new else ""
                print(f"{self.title}: {count} of {len(self.files)} stages, {spent:.0f} s{left}", file=sys.stderr, flush=True)
                said = spent
                if count == len(self.files):
                    return
