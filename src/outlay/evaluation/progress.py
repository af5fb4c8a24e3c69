"""Progress of an evaluation with the running accuracy of the task: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

EVERY = 10.0  # seconds between two lines


class Progress:
    """Hears of every item. Nothing is shown when quiet."""

    def __init__(self, total: int, done: int, *, quiet: bool) -> None:
        """total: items in all; done: how many of them an earlier run has left."""
        from rich.console import Console

        self.total, self.done, self.new, self.quiet = total, done, 0, quiet
        self._begin = self._said = time.monotonic()
        self._bar = None
        if not quiet and Console(stderr=True).is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description:<58}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._job = self._bar.add_task("", total=total, completed=done)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def item(self, task: str, right: int, seen: int, of: int) -> None:
        """One more item is done: of this task, `right` of the `seen` ones so far are right (strict), `of` in all."""
        self.done, self.new = self.done + 1, self.new + 1
        if self.quiet:
            return
        running = f"{task}: {right} of {seen} right ({right / seen:.1%})"
        if self._bar is not None:
            self._bar.update(self._job, completed=self.done, description=running)
            return
        now = time.monotonic()
        if seen == of or now - self._said >= EVERY:
            left = (now - self._begin) / self.new * (self.total - self.done)
            print(f"{self.done} of {self.total}, about {left:.0f} s left; {running}{'' if seen == of else ' so far'}", file=sys.stderr, flush=True)
            self._said = now
