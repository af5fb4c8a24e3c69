"""Scoring by a trained model in shards: a kill loses one of them."""

import numpy as np
import pytest

from outlay import shards
from outlay.errors import DataError
from outlay.types import Cost, Signals


def score(calls, fail_at=None):
    def one(rows):
        if len(calls) == fail_at:
            raise KeyboardInterrupt
        calls.append(rows.tolist())
        return Signals({"x": rows.astype(np.float32), "v": np.outer(rows, [1.0, 2.0]).astype(np.float32)}, frozenset({"x", "v"}), Cost(prompt_tokens=len(rows)))

    return one


def test_shards_done_before_a_kill_are_not_scored_again(tmp_path):
    rows, calls = np.arange(3, 13), []
    with pytest.raises(KeyboardInterrupt):
        shards.scored(tmp_path, "unlabeled", rows, 4, score(calls, fail_at=2))
    found = shards.scored(tmp_path, "unlabeled", rows, 4, score(calls))
    assert calls == [[3, 4, 5, 6], [7, 8, 9, 10], [11, 12]]
    np.testing.assert_array_equal(np.concatenate([part.columns["v"] for _, part in found]), np.outer(rows, [1.0, 2.0]))
    assert sum(part.cost.prompt_tokens for _, part in found) == 10 and found[0][1].live == {"x", "v"}
    shards.discard(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_shard_alone_writes_nothing(tmp_path):
    shards.scored(tmp_path, "unlabeled", np.arange(4), 4, score([]))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_shard_is_named(tmp_path):
    shards.scored(tmp_path, "unlabeled", np.arange(6), 4, score([]))
    path = next((tmp_path / shards.FOLDER).glob("*-00001.npz"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="00001"):
        shards.scored(tmp_path, "unlabeled", np.arange(6), 4, score([]))
