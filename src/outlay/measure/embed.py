"""Embeddings that no strategy sees, so that diversity is not measured with the ruler that chose: of prompts, and of responses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from ..seeds import seed
from ..types import Floats
from .diversity import prepare

# Character n-grams inside words: a prompt of 40 characters has too few words to share one with its like, but it shares stems;
# in 300 characters the idf and the logarithm of counts keep the frequent pieces from drowning the rest.
NGRAMS = (3, 5)
FEATURES = 1 << 15
DIMENSIONS = 128
HASHED = 1024


def tfidf(texts: Sequence[str], dimensions: int = DIMENSIONS) -> Floats:
    """Truncated SVD of TF-IDF over character n-grams, centred, rows of length 1: ready for diversity.py. (n,) -> (n, <= dimensions + 1).

    Latent semantic analysis, Deerwester et al. 1990. Deterministic; fit it on the whole pool, never on what was bought.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        table = TfidfVectorizer(analyzer="char_wb", ngram_range=NGRAMS, max_features=FEATURES, sublinear_tf=True).fit_transform(texts)
    except ValueError:
        raise DataError(f"none of the {len(texts)} prompts has any text to embed; check the pool's text column") from None
    svd = TruncatedSVD(min(dimensions, *table.shape), random_state=seed(0, "measure", "tfidf") % 2**32)
    with np.errstate(invalid="ignore", divide="ignore"):  # it divides by the variance, which equal prompts lack; we do not use that
        points = svd.fit_transform(table)
    return prepare(points)


def hashed(texts: Sequence[str]) -> Floats:
    """Counts of character n-grams, hashed into HASHED columns with random signs, rows of length 1. (n,) -> (n, HASHED + 1) float32.

    Nothing is fitted, so what different campaigns bought is embedded alike and no answer that was not bought is looked at. Cosines
    of the n-gram counts are kept within about 1 / sqrt(HASHED) (Weinberger et al. 2009, arXiv 0902.2206). Texts without any n-gram
    are alike.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    points = HashingVectorizer(analyzer="char_wb", ngram_range=NGRAMS, n_features=HASHED, dtype=np.float32).transform(texts).toarray()
    return np.hstack([points, ~points.any(axis=1, keepdims=True)]).astype(np.float32)
