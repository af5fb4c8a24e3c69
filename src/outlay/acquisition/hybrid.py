"""Prompts that the model is unsure of and that are not all alike."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from annotated_types import Ge

from ..coverage import facility, spread
from ..coverage.similarity import unit
from ..registry import strategy
from ..types import Floats, Indices, View
from .ranking import Share, by_lottery, highest, line_up, reached


# Not nested: each round draws anew, so two rounds do not buy what one would have.
@strategy(needs=("gradient",), source="Ash et al. 2020, arXiv 1906.03671 (BADGE)")
def badge(view: View, k: int, rng: np.random.Generator) -> Indices:
    """D^2 sampling of gradients: long where the model is unsure of its own response, and unlike where another change would be learnt.

    The gradient is that of the LM head for the model's own greedy response, (p - onehot(y)) x h, summed over its tokens y; h is the last
    hidden state. The scorer sketches it to few numbers in a way that keeps inner products (scorer `llm`: TensorSketch). As in the paper,
    what is already bought plays no part but through the model.
    """
    rows = by_lottery(view)
    gradients = view.signals.columns["gradient"][rows]
    return rows[spread.d2_sample(gradients, k, candidates=np.arange(len(rows)), chosen=np.empty(0, dtype=np.int64), rng=rng)]


def filtered_gain(view: View, picks: Indices, *, factor: float = 4.0) -> Floats:
    """What each pick added to the representation of the uncertain prompts (similarity summed over them). -> (k,)."""
    rows = _uncertain(view, len(picks), factor)
    place = (picks[:, None] == rows).argmax(axis=1)
    labeled = np.arange(len(rows), len(rows) + len(view.labeled))
    return facility.gains_in_order(view.signals.columns["embedding"][np.concatenate([rows, view.labeled])], place, chosen=labeled)


@strategy(needs=("mean_entropy", "embedding"), score=filtered_gain, source="Wei, Iyer & Bilmes 2015 (FASS: filter, then a submodular function)")
def uncertainty_filtered_facility_location(view: View, k: int, rng: np.random.Generator, *, factor: Annotated[float, Ge(1)] = 4.0) -> Indices:
    """Facility location (cosine) among the `factor` times k prompts of highest mean entropy (nats): they stand for each other.

    Certain prompts neither are bought nor have to be represented; what is already bought represents too. The paper's submodular
    functions use the classes of a classifier; there are none here.
    """
    rows = _uncertain(view, k, factor)
    labeled = view.labeled[np.argsort(view.lottery[view.labeled], kind="stable")]
    points = view.signals.columns["embedding"][np.concatenate([rows, labeled])]
    found = facility.cover(points, k, candidates=np.arange(len(rows)), chosen=np.arange(len(rows), len(points)))
    reached(view, found.objective, found.bound)
    return rows[found.picks]


def _uncertain(view: View, k: int, factor: float) -> Indices:
    """The factor * k unlabeled rows of highest mean entropy, in the order of the lottery."""
    rows = highest(view, view.score("mean_entropy"), math.ceil(factor * k))
    return rows[np.argsort(view.lottery[rows], kind="stable")]


def weighted_gain(view: View, picks: Indices) -> Floats:
    """What each pick added to the weighted representation of the pool, in units of the largest entropy. -> (k,)."""
    return facility.gains_in_order(view.signals.columns["embedding"], picks, chosen=view.labeled, weights=_entropy(view))


@strategy(needs=("mean_entropy", "embedding"), score=weighted_gain, source="Zhdanov 2019, arXiv 1901.05954: its weighted k-means, as facility location", nested=True)
def uncertainty_weighted_facility_location(view: View, k: int, rng: np.random.Generator) -> Indices:
    """Facility location (cosine) in which an unlabeled prompt counts as much as its mean entropy (nats), counting what is already bought.

    A certain prompt may be bought if it represents uncertain ones. The paper clusters the most uncertain prompts with the weights of
    their uncertainty and buys the nearest to each centroid; here the weights are in the objective, and nothing is filtered.
    """
    line = line_up(view)
    points = view.signals.columns["embedding"][line.rows]
    found = facility.cover(points, k, candidates=line.unlabeled, chosen=line.labeled, weights=_entropy(view)[line.rows])
    reached(view, found.objective, found.bound)
    return line.rows[found.picks]


def _entropy(view: View) -> Floats:
    """(n,): 0 where the prompt is not for sale, since it is not measured there and represented already."""
    weights = np.zeros(len(view.lottery))
    weights[view.unlabeled] = view.score("mean_entropy")
    return weights


Count = Annotated[int, Ge(1)]


def hybrid(view: View, picks: Indices, *, weight: Share = 0.5, strata: Count = 10) -> Floats:
    """The HUDS score of each pick, 0 to 1. -> (k,)."""
    return _huds(view, weight, strata)[picks]


@strategy(needs=("mean_logprob", "embedding"), score=hybrid, source="Azeemi et al. 2025, arXiv 2403.09259 (HUDS)", nested=True)
def huds(view: View, k: int, rng: np.random.Generator, *, weight: Share = 0.5, strata: Count = 10) -> Indices:
    """Prompts that the model is unsure of and that are unlike the others of which it is as unsure.

    Highest weight * (cosine distance to the centroid of its stratum) + (1 - weight) * (negative mean log-probability of the response,
    nats), over the unlabeled prompts; strata are equally wide intervals of the latter. Both parts are first stretched to 0..1: nats and
    cosine distances share no unit, so without it the weight means something else for every model. One centroid a stratum.
    """
    return highest(view, _huds(view, weight, strata)[view.unlabeled], k)


def _huds(view: View, weight: float, strata: int) -> Floats:
    """(n,); NaN where the prompt is not for sale."""
    rows = by_lottery(view)
    unsure = _stretched(-view.signals.columns["mean_logprob"][rows].astype(np.float64))
    stratum = np.minimum((unsure * strata).astype(np.int64), strata - 1)
    points = unit(view.signals.columns["embedding"], rows).astype(np.float64)
    centroids = np.zeros((strata, points.shape[1]))
    np.add.at(centroids, stratum, points)
    unlike = 1 - np.einsum("md,md->m", points, unit(centroids)[stratum])
    scores = np.full(len(view.lottery), np.nan)
    scores[rows] = np.round(weight * _stretched(np.round(unlike, 6)) + (1 - weight) * unsure, 9)  # the rounding of sums decides no tie
    return scores


def _stretched(values: Floats) -> Floats:
    """To 0..1; all 0 if all are equal."""
    values = values - values.min()
    return values / values.max() if values.max() > 0 else values
