"""The generated pool: the same in every process, nothing shared with the test side, global generators as they were."""

import hashlib
import os
import random
import subprocess
import sys

import numpy as np
import pytest

from outlay import pools, registry
from outlay.errors import ConfigError
from outlay.pools.gym import ReasoningGym, settings

pytest.importorskip("reasoning_gym")

QUICK = ("count_primes", "spell_backward", "gcd", "syllogism")


def digest(table):
    return hashlib.sha256(repr(table.to_pylist()).encode()).hexdigest()


def test_all_thirty_families_within_their_limits():
    table = pools.check("gym", registry.build("pool", "reasoning_gym(size=300, mixture='balanced')")())
    known = settings()
    assert table.num_rows == 300 == 10 * len(known) and pools.repeated(table) == 0
    for row in table.to_pylist():
        family = known[row["group"]]
        assert len(row["text"]) <= family["max_prompt_chars"] and 1 <= len(row["response"]) <= family["max_answer_chars"] and "\n" not in row["response"]
    groups = table.column("group").to_pylist()
    assert all(groups.count(name) == 10 for name in known) and groups != sorted(groups)


def test_limits_are_kept(monkeypatch):
    from outlay.pools import gym

    tight = {"gcd": settings()["gcd"] | {"max_answer_chars": 1}}
    monkeypatch.setattr(gym, "settings", lambda: tight)
    assert {len(answer) for answer in ReasoningGym(size=30)().column("response").to_pylist()} == {1}


def test_zipf_shares_follow_the_order_of_families():
    groups = ReasoningGym(size=250, families=QUICK)().column("group").to_pylist()
    assert [groups.count(name) for name in QUICK] == [120, 60, 40, 30]


def test_pool_and_test_share_no_text_whatever_the_seeds_and_sizes():
    tests = [ReasoningGym(size=n, split="test", seed=seed, families=QUICK)() for n, seed in ((40, 0), (150, 1))]
    for seed, mixture in ((0, "zipf"), (1, "balanced"), (2, "zipf")):
        pool = ReasoningGym(size=400, seed=seed, mixture=mixture, families=QUICK)()
        for test in tests:
            pools.require_disjoint(pool, test, "t")


def test_neighbouring_seeds_share_no_more_than_distant_ones():
    texts = [set(ReasoningGym(size=100, seed=seed, families=("syllogism", "time_intervals"))().column("text").to_pylist()) for seed in (0, 1, 10**6)]
    assert len(texts[0] & texts[1]) < 5 and len(texts[0] & texts[2]) < 5  # items of seed s, place i come from s + i


def test_a_larger_pool_holds_the_smaller_one():
    small, large = (set(ReasoningGym(size=n, families=QUICK, mixture="balanced")().column("id").to_pylist()) for n in (40, 80))
    assert small < large


@pytest.mark.slow
def test_the_same_bytes_under_any_hash_seed():
    code = "import hashlib; from outlay.pools.gym import ReasoningGym as R; print(hashlib.sha256(repr(R(size=120, mixture='balanced')().to_pylist()).encode()).hexdigest())"
    here = digest(ReasoningGym(size=120, mixture="balanced")())
    for seed in ("1", "777"):
        found = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == here


def test_global_generators_are_as_before_and_do_not_matter():
    random.seed(5)
    np.random.seed(5)
    before, numbers = random.getstate(), np.random.get_state()
    first = digest(ReasoningGym(size=60, mixture="balanced")())
    assert random.getstate() == before
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), numbers, strict=True))
    random.random()
    assert digest(ReasoningGym(size=60, mixture="balanced")()) == first
    random.seed(6)
    with pytest.raises(ConfigError):
        ReasoningGym(size=10**5, families=("caesar_cipher",))()
    state = random.getstate()
    random.seed(6)
    assert state == random.getstate()


def test_a_family_without_enough_texts_says_how_many_it_has():
    with pytest.raises(ConfigError, match=r"900 different test questions of the family 'caesar_cipher' are wanted, but it has only about \d+; lower size"):
        ReasoningGym(size=900, split="test", families=("caesar_cipher",))()


@pytest.mark.parametrize(
    ("options", "says"),
    [({"families": ("gdc",)}, "did you mean 'gcd'"), ({"families": ("gcd", "gcd")}, "each family once"), ({"size": 0}, "size of at least 1"), ({"families": ("ransom_note",)}, "no family 'ransom_note'")],
)
def test_bad_options_are_named(options, says):
    with pytest.raises(ConfigError, match=says):
        ReasoningGym(**options)()


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ConfigError, match=r"pip install outlay\[gym\]"):
        ReasoningGym(size=5)()
