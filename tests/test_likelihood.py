import types

import numpy as np
import pandas as pd
import pytest

from outlay.report import answer, likelihood

ROUNDS = (1, 2, 4, 8)


@pytest.fixture(scope="module")
def study():
    """Two live strategies: each doubling takes 0.3 nats from one and nothing from the other, which starts 0.2 above random."""
    rng, found, nll = np.random.default_rng(0), {"random": {1: {}}, "falls": {}, "flat": {}}, {}
    items, seeds = rng.gamma(2.0, 0.5, 80), rng.normal(0, 0.01, 5)
    for strategy, m in [("random", 1), *(("falls", m) for m in ROUNDS), *(("flat", m) for m in ROUNDS)]:
        for seed in range(5):
            name = f"{strategy}-{m}-{seed}"
            found[strategy].setdefault(m, {})[seed] = name
            shift = {"random": 0.0, "falls": -0.3 * np.log2(m), "flat": 0.2}[strategy]
            nll[name, "test"] = items + shift + seeds[seed] + rng.normal(0, 0.02, 80)
    return answer.Arms(pd.DataFrame(), found, ["falls", "flat"]), nll


def table(study, benches=("test",)):
    return likelihood.likelihood(*study, types.SimpleNamespace(evaluators=dict.fromkeys(benches)))


def test_a_planted_slope_of_the_likelihood_is_found_and_belongs_to_its_strategy(study):
    slopes = table(study).query("kind == 'per doubling of the rounds'").set_index("strategy")
    for strategy, planted in (("live strategies", -0.15), ("falls", -0.3), ("flat", 0.0)):
        assert slopes.loc[strategy, "effect"] == pytest.approx(planted, abs=0.01)
        assert slopes.loc[strategy, "effect_low"] <= planted <= slopes.loc[strategy, "effect_high"]


def test_higher_than_random_is_a_positive_difference(study):
    against = table(study).query("kind == 'minus random'").set_index(["strategy", "rounds"])
    assert len(against) == 8 and "random" not in against.index.get_level_values(0)
    assert against.loc[("flat", 4), "effect_low"] > 0.15 and against.loc[("falls", 8), "effect_high"] < -0.8
    assert (against["items"] == 80).all() and (against["seeds"] == 5).all()


def test_a_test_without_likelihood_has_no_row(study):
    assert set(table(study, ("test", "choices"))["benchmark"]) == {"test"}
