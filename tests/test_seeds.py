"""Random streams are addressed by name: they share nothing, and nothing but the name matters."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from outlay import seeds

parts = st.one_of(st.integers(), st.text(max_size=5))
paths = st.lists(parts, max_size=4).map(tuple)


@given(paths, paths)
def test_different_paths_are_different_streams(a, b):
    assert (seeds.seed(0, *a) == seeds.seed(0, *b)) == (a == b)


def test_the_parts_of_a_path_do_not_run_together():
    assert seeds.seed(0, "a", "bc") != seeds.seed(0, "ab", "c")


def test_a_number_and_its_digits_are_different_parts():
    assert seeds.seed(0, 1) != seeds.seed(0, "1")


def test_a_numpy_integer_names_the_same_stream_as_the_python_one():
    assert seeds.seed(np.int64(3), "band", np.int32(8)) == seeds.seed(3, "band", 8)


@given(st.integers(), paths)
def test_a_seed_has_63_bits(root, path):
    assert 0 <= seeds.seed(root, *path) < 1 << 63


def test_seeds_are_the_same_on_every_machine_and_in_every_version():
    assert seeds.seed(0, "select", "random", 1) == 1921768406574991199


def test_neighbouring_seeds_share_no_draw():
    draws = [set(seeds.generator(root, "train").integers(1 << 62, size=200).tolist()) for root in range(20)]
    assert len(set.union(*draws)) == 20 * 200


def test_a_generator_starts_afresh_each_time():
    assert np.array_equal(seeds.generator(4, "x").random(9), seeds.generator(4, "x").random(9))


@given(st.lists(st.text(max_size=8), unique=True, max_size=20), st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_lottery_does_not_depend_on_the_order_of_the_pool(ids, root, shuffler):
    order = list(range(len(ids)))
    shuffler.shuffle(order)
    drawn = seeds.lottery(root, ids)
    assert np.array_equal(seeds.lottery(root, [ids[i] for i in order]), drawn[order])


def test_the_lottery_of_an_id_does_not_depend_on_the_other_ids():
    assert seeds.lottery(1, ["a", "b", "c"])[2] == seeds.lottery(1, ["c"])[0]


def test_the_lottery_is_uniform():
    drawn = np.sort(seeds.lottery(7, [f"p{i}" for i in range(4000)]))
    assert drawn[0] >= 0
    assert drawn[-1] < 1
    assert np.abs(drawn - np.linspace(0, 1, 4000)).max() < 1.63 / np.sqrt(4000)  # Kolmogorov-Smirnov at 1 %


def test_lotteries_of_different_seeds_and_purposes_are_unrelated():
    ids = [f"p{i}" for i in range(4000)]
    for other in (seeds.lottery(1, ids), seeds.lottery(0, ids, "share")):
        assert abs(np.corrcoef(seeds.lottery(0, ids), other)[0, 1]) < 0.06
