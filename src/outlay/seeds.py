"""Named random streams. Every draw comes from a generator that is addressed by a path, e.g. ("select", "random", 2);
neighbouring seeds share nothing, and adding a stream changes no other one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def seed(root: int, *path: str | int) -> int:
    """63-bit seed of the stream `path` below `root`: BLAKE2b of the length-prefixed parts, so ("a", "bc") != ("ab", "c")."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (root, *path):
        text = f"{'str' if isinstance(part, str) else 'int'}:{part}".encode()  # a numpy integer is the same part as a Python one
        digest.update(len(text).to_bytes(4, "big") + text)
    return int.from_bytes(digest.digest(), "big") >> 1


def generator(root: int, *path: str | int) -> np.random.Generator:
    """A fresh numpy generator for the stream `path` below `root`."""
    return np.random.default_rng(seed(root, *path))


def lottery(root: int, ids: Sequence[str], *path: str | int) -> np.ndarray:
    """A uniform number in [0, 1) for each id, fixed by (root, path, id) alone: independent of the order of the pool. -> (n,) float64."""
    key = seed(root, "lottery", *path).to_bytes(8, "big")
    raw = b"".join(hashlib.blake2b(name.encode(), digest_size=8, key=key).digest() for name in ids)
    return (np.frombuffer(raw, dtype=">u8") >> 11).astype(np.float64) / float(1 << 53)
