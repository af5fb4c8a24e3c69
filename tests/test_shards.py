"""A pool is scored in shards: a kill loses one of them, and a shard is known by what is in it."""

import numpy as np
import pytest

from outlay import shards
from outlay.errors import DataError
from outlay.toy import ToyPool
from outlay.types import Cost, Pool, Signals


@pytest.fixture(scope="module")
def pool():
    return Pool("toy", ToyPool(size=20)().drop_columns("response"))


def score(calls, fail_at=None):
    def one(part):
        if len(calls) == fail_at:
            raise KeyboardInterrupt
        calls.append(part.ids)
        lengths = np.array([len(text) for text in part.texts], dtype=np.float32)
        return Signals({"x": lengths, "v": np.outer(lengths, [1.0, 2.0]).astype(np.float32)}, frozenset({"x", "v"}), Cost(prompt_tokens=len(part)))

    return one


def test_shards_done_before_a_kill_are_not_scored_again(tmp_path, pool):
    rows, calls = np.arange(3, 13), []
    with pytest.raises(KeyboardInterrupt):
        shards.scored(tmp_path, pool, rows, 4, score(calls, fail_at=2), key="m")
    found = shards.scored(tmp_path, pool, rows, 4, score(calls), key="m")
    assert calls == [pool.ids[3:7], pool.ids[7:11], pool.ids[11:13]]
    lengths = [len(text) for text in pool.texts[3:13]]
    np.testing.assert_array_equal(np.concatenate([part.columns["v"] for _, part in found]), np.outer(lengths, [1.0, 2.0]))
    assert sum(part.cost.prompt_tokens for _, part in found) == 10 and found[0][1].live == {"x", "v"}
    shards.discard(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_of_another_model_or_of_other_prompts_is_not_taken_for_this_one(tmp_path, pool):
    calls = []
    shards.scored(tmp_path, pool, np.arange(8), 4, score(calls), key="m")
    shards.scored(tmp_path, pool, np.arange(8), 4, score(calls), key="m2")
    shards.scored(tmp_path, pool, np.arange(2, 10), 4, score(calls), key="m")
    assert len(calls) == 6
    shards.scored(tmp_path, pool, np.arange(4, 12), 4, score(calls), key="m")
    assert len(calls) == 7, "the prompts 4 to 7 were a shard before"


def test_shards_done_in_any_order_come_back_in_that_of_the_pool(tmp_path, pool):
    def shuffled(fn, parts):
        done = {number: fn(parts[number]) for number in (3, 0, 4, 2, 1)}
        return [done[number] for number in range(len(parts))]

    found = shards.scored(tmp_path, pool, np.arange(18), 4, score([]), key="m", each=shuffled)
    assert np.concatenate([rows for rows, _ in found]).tolist() == list(range(18))
    assert np.concatenate([part.columns["x"] for _, part in found]).tolist() == [len(text) for text in pool.texts[:18]]


def test_one_shard_alone_writes_nothing(tmp_path, pool):
    shards.scored(tmp_path, pool, np.arange(4), 4, score([]), key="m")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_shard_is_named(tmp_path, pool):
    shards.scored(tmp_path, pool, np.arange(6), 4, score([]), key="m")
    path = next((tmp_path / shards.FOLDER).glob("*.npz"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=path.stem):
        shards.scored(tmp_path, pool, np.arange(6), 4, score([]), key="m")
