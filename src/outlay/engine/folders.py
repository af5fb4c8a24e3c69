"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutlayError


@contextmanager
def new_folder(path: Path, *, keep_other: bool = False) -> Iterator[Path]:
    """A temporary sibling to write into; it gets the name `path` when the block ends without an error.

    If a folder with content is there by then: with `keep_other` (two processes that made the same thing) it stays and ours is
    dropped, otherwise OutlayError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp's folders are closed to others
        try:
            os.rename(temporary, path)
        except OSError:
            if not path.is_dir():
                raise
            if not keep_other:
                raise OutlayError(f"{path} exists and is not empty; give a fresh folder or remove this one") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
