"""Do the intervals cover, the tests keep their level, the recommendation keep its word? Simulated studies with known truth.

    python scripts/validate_statistics.py [--studies 1000]

Prints the tables of docs/statistics.md.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from scipy import stats

from outlay.measure import contrasts, mediation, value
from outlay.measure.stats import t_interval

ITEMS = 300
SEEDS = (3, 5, 10, 20)
# Standard deviations, on the probit scale, of what seeds, items, and seeds x items add to each of two campaigns, their own and shared.
WORLDS = {"seeds differ most": (0.30, 0.10), "items differ most": (0.05, 0.80), "both": (0.20, 0.50)}
SHARED = 0.5


def answers(rng: np.random.Generator, seeds: int, effects: np.ndarray, of_seed: float, of_item: float, items: int = ITEMS) -> np.ndarray:
    """(a, s, n) of 0 and 1: right where effect + seed + item + noise > 0; half of a seed's and an item's effect is shared by the campaigns."""
    arms = len(effects)
    latent = effects[:, None, None] + rng.normal(size=(arms, seeds, items))
    latent = latent + of_seed * (rng.normal(size=(arms, seeds, 1)) + SHARED * rng.normal(size=(1, seeds, 1)))
    latent = latent + of_item * (rng.normal(size=(arms, 1, items)) + SHARED * rng.normal(size=(1, 1, items)))
    return (latent > 0).astype(float)


def truth(effects: np.ndarray, of_seed: float, of_item: float) -> np.ndarray:
    return stats.norm.cdf(effects / math.sqrt(1 + (1 + SHARED**2) * (of_seed**2 + of_item**2)))


def coverage(studies: int) -> list[tuple]:
    rows = []
    effects = np.array([0.45, 0.30])
    for name, (of_seed, of_item) in WORLDS.items():
        a, b = truth(effects, of_seed, of_item)
        for seeds in SEEDS:
            rng = np.random.default_rng([seeds, list(WORLDS).index(name)])
            held = np.zeros((3, 1))
            width = 0.0
            for _ in range(studies):
                table = np.subtract(*answers(rng, seeds, effects, of_seed, of_item))
                found = contrasts.crossed(table)
                alone = t_interval(table.mean(axis=1))
                drawn = np.quantile(contrasts.draws(table[None], 400, rng)[:, 0], (0.025, 0.975))
                for row, (low, high) in enumerate(((found.low, found.high), (alone.low, alone.high), drawn)):
                    held[row] += low <= a - b <= high
                width += found.high - found.low
            rows.append((name, seeds, *(f"{100 * h / studies:.1f}" for h in held[:, 0]), f"{100 * width / studies:.1f}"))
    return rows


def level(studies: int) -> list[tuple]:
    rows = []
    for name, (of_seed, of_item) in {"no item effects": (0.2, 0.0), **WORLDS}.items():
        for seeds in (6, 10):
            rng = np.random.default_rng([seeds, of_item > 0, int(100 * of_item)])
            tables = [np.subtract(*answers(rng, seeds, np.array([0.3, 0.3]), of_seed, of_item)) for _ in range(studies)]
            found = np.array([(contrasts.crossed(t).p, contrasts.sign_flips(t.mean(axis=1))[0]) for t in tables])
            rows.append((name, seeds, contrasts.sign_flips(np.ones(seeds))[1], *(f"{100 * (p <= 0.05).mean():.1f}" for p in found.T)))
    return rows


def savings(studies: int) -> list[tuple]:
    """Random's curve and another campaign's accuracy, each with its own luck a seed: how often does the interval hold the true number?"""
    labels, true, target = np.array([0, 32, 64, 128, 256.0]), np.array([0.30, 0.38, 0.43, 0.48, 0.52]), 0.455
    want, rows = float(np.interp(target, true, labels)), []
    for seeds in SEEDS:
        rng, held = np.random.default_rng(seeds), 0
        for _ in range(studies):
            luck = rng.normal(0, 0.01, (seeds, 1))
            curve = true + luck + rng.normal(0, 0.015, (seeds, 5))
            curve[:, 0] = 0.30
            found = value.labels_needed(labels, curve, target + luck[:, 0] + rng.normal(0, 0.015, seeds), count=300, rng=rng)
            held += found.low <= want <= found.high
        rows.append((seeds, f"{100 * held / studies:.1f}"))
    return rows


def chain(studies: int) -> list[tuple]:
    """a = 0.5, b = 0.8, direct = -0.1 planted; six strategies, m = 1, 2, 4, 8; seeds move the slopes."""
    rows = []
    m = np.tile([1, 2, 4, 8], 6)
    strategy = np.repeat(np.arange(6), 4)
    for seeds in (5, 10, 20):
        rng = np.random.default_rng(seeds)
        planted = {"a": 0.5, "b": 0.8, "direct": -0.1, "indirect": 0.4, "total": 0.3}
        seen = {name: [] for name in planted}
        held = dict.fromkeys(planted, 0)
        rounds, unit, seed = np.tile(m, seeds), np.concatenate([strategy + 6 * s for s in range(seeds)]), np.repeat(np.arange(seeds), len(m))
        for _ in range(studies):
            x = np.log2(rounds)
            slopes = rng.normal(size=(2, seeds))[:, seed] * 0.2
            mediator = rng.normal(size=6 * seeds)[unit] + (0.5 + slopes[0]) * x + rng.normal(size=len(x)) * 0.5
            outcome = rng.normal(size=6 * seeds)[unit] + (-0.1 + slopes[1]) * x + 0.8 * mediator + rng.normal(size=len(x)) * 0.5
            for name, path in mediation.mediation(rounds, mediator, outcome, unit, seed, count=400, rng=rng).items():
                seen[name].append(path.value)
                held[name] += path.low <= planted[name] <= path.high
        for name, true in planted.items():
            rows.append((seeds, name, true, f"{np.mean(seen[name]):.3f}", f"{np.std(seen[name]) / math.sqrt(studies):.3f}", f"{100 * held[name] / studies:.1f}"))
    return rows


def promises(studies: int) -> list[tuple]:
    """Eight campaigns, true values drawn anew in each study: how often is the recommended one the best, by what it claims?"""
    rows = []
    for seeds in (3, 5, 10):
        rng = np.random.default_rng(seeds)
        claims, hits = [], []
        for _ in range(studies):
            effects = rng.normal(0.4, 0.10, size=8)
            costs = rng.uniform(0, 10, size=8)
            choice = value.recommend(contrasts.draws(answers(rng, seeds, effects, 0.08, 0.4, 200), 400, rng), costs, 300.0)
            claims.append(choice.probability)
            hits.append(choice.best == np.argmax(300 * truth(effects, 0.08, 0.4) - costs))
        claims, hits = np.array(claims), np.array(hits)
        for low, high in ((0, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.01)):
            some = (claims >= low) & (claims < high)
            if some.sum() >= 20:
                rows.append((seeds, f"{low:.1f} to {min(high, 1):.1f}", int(some.sum()), f"{100 * claims[some].mean():.0f}", f"{100 * hits[some].mean():.0f}"))
    return rows


def table(title: str, heads: tuple, rows: list[tuple]) -> None:
    print(f"\n{title}\n\n| {' | '.join(map(str, heads))} |\n|{'---|' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    studies = parser.parse_args().studies
    table("Coverage of nominal 95 % intervals", ("world", "seeds", "crossed, %", "t over seeds alone, %", "crossed bootstrap, %", "width of crossed, points"), coverage(studies))
    table("False alarms at 5 %", ("world", "seeds", "smallest p of sign flips", "crossed, %", "sign flips, %"), level(studies))
    table("Coverage of the annotations that random needs", ("seeds", "coverage, %"), savings(min(studies, 500)))
    table("Mediation with planted effects", ("seeds", "path", "planted", "mean found", "its standard error", "coverage, %"), chain(studies))
    table("The recommendation", ("seeds", "claimed probability", "studies", "mean claim, %", "was the best, %"), promises(studies))


if __name__ == "__main__":
    main()
