"""A whole world on a CPU in milliseconds, with numpy only: tests, the tutorial and the docs run on it.

A prompt is "verb key noise noise", its group is the verb, and its one-word response is the verb's rule for that key. The model
is a softmax over hashed words and word pairs, so it has to see a (verb, key) pair to know its response. The base knows
the pairs of half of the verbs, common and rare ones alike (two pieces in one hash bucket still mislead it now and then): there
random annotations are wasted, and uncertainty finds the rest. The model "toy-small" reads pairs only: it can stand for a proxy.

Costs are counted for sparse features: a text of t words has 2 t active ones, t for toy-small. One device does a GFLOP a second, by
definition, so that two runs give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from .errors import DataError
from .measure.bleu import bleu_variance
from .pairing import pair_of
from .registry import register
from .seeds import generator, lottery
from .types import Annotation, Cost, Evaluation, Floats, Model, Pairs, Pool, Prompt, Signals

if TYPE_CHECKING:
    import pyarrow as pa

VERBS = ("carry", "paint", "fold", "count", "mend", "weigh", "plant", "trade", "wash", "light", "guard", "carve")
KEYS = ("amber", "birch", "cedar", "dune", "ember", "flint")
NOISE = tuple(a + b for a in ("lo", "mi", "ra", "su", "te", "vo") for b in ("ba", "den", "fik", "gol", "pum"))
RESPONSES = ("north", "east", "south", "west")
KNOWN = VERBS[::2]
TEST_SHARE = 0.25  # of all texts

SMALL = "toy-small"
FEATURES = 1024
DIMENSIONS = 32
FLOPS_PER_SECOND = 10**9
SAMPLES = 5
GREEDY = frozenset({"mean_entropy", "max_entropy", "sum_logprob", "mean_logprob", "mean_margin", "min_margin", "gradient"})
JUDGED = frozenset({"hallucination_semantic", "hallucination_discourse", "hallucination_content"})
SAMPLED = frozenset({"bleu_variance", "sample_entropy", "reward_gap"})
LIVE = GREEDY | JUDGED | SAMPLED


@register("pool", "toy")
@dataclass(frozen=True, kw_only=True)
class ToyPool:
    """Prompts of the toy world, with their gold responses; no text is on both sides.

    Verbs and keys have Zipf shares; `mixture="balanced"` draws the verbs alike.
    """

    size: int = 400
    seed: int = 0
    split: Literal["pool", "test"] = "pool"
    mixture: Literal["zipf", "balanced"] = "zipf"

    def __call__(self) -> pa.Table:
        """String columns id, text, group, response; `size` different texts."""
        import pyarrow as pa

        share = TEST_SHARE if self.split == "test" else 1 - TEST_SHARE
        if self.size > 0.3 * share * len(VERBS) * len(KEYS) * len(NOISE) ** 2:
            raise DataError(f"the toy world has too few texts for {self.size} different ones on the {self.split} split; ask for fewer")
        rng = generator(self.seed, "toy", self.split, self.mixture)
        verb_shares = _zipf(len(VERBS)) if self.mixture == "zipf" else np.full(len(VERBS), 1 / len(VERBS))
        rows: dict[str, tuple[str, str]] = {}
        while len(rows) < self.size:
            draw = zip(
                rng.choice(VERBS, self.size, p=verb_shares),
                rng.choice(KEYS, self.size, p=_zipf(len(KEYS))),
                rng.choice(NOISE, self.size),
                rng.choice(NOISE, self.size),
                strict=True,
            )
            for words in draw:
                text = " ".join(words)
                if len(rows) < self.size and (_hash(text) < TEST_SHARE * 2**64) == (self.split == "test"):
                    rows[text] = (str(words[0]), rules()[str(words[0]), str(words[1])])
        return pa.table(
            {
                "id": [f"toy-{_hash(text):016x}" for text in rows],
                "text": list(rows),
                "group": [group for group, _ in rows.values()],
                "response": [response for _, response in rows.values()],
            }
        )


@register("scorer", "toy")
@dataclass(frozen=True, kw_only=True)
class ToyScorer:
    """What the toy model says of each prompt. A response is one token, so its mean, largest and summed values agree.

    gradient: (p - onehot(y)) x h with h the embedding before it is scaled. bleu_variance, sample_entropy: of SAMPLES responses drawn from p; reward_gap: of the first two
    different ones among them, in nats. The scores of hallucination are made up, so that strategies that read them run here: 1 - p of the likeliest response, entropy in shares of the largest
    there is, 1 - the margin.
    """

    max_new_tokens: ClassVar[int] = 1
    samples: ClassVar[int] = SAMPLES

    @property
    def provides(self) -> frozenset[str]:
        return LIVE | {"embedding"}

    def __call__(self, model: Model, pool: Pool, needs: frozenset[str], *, seed: int) -> Signals:
        """The signals `needs` (float32), and always prompt_tokens and response_tokens (int32; 0 where nothing was decoded); for bleu_variance
        and its like sampled_tokens (n, SAMPLES). All (n,), but embedding and gradient (n, d)."""
        if unknown := needs - self.provides:
            raise DataError(f"the toy scorer has no signal '{min(unknown)}'; it provides {', '.join(sorted(self.provides))}")
        texts = pool.texts
        lengths = np.array([len(text.split()) for text in texts], dtype=np.int32)
        columns: dict[str, np.ndarray] = {"prompt_tokens": lengths, "response_tokens": np.full(len(texts), bool(needs & (GREEDY | JUDGED)), dtype=np.int32)}
        features = featurise(texts, model.base)
        points = features @ _projection() if needs & {"embedding", "gradient"} else features
        if needs & LIVE:
            p = np.exp(logp := _log_softmax(features @ load(model)))
            ordered = np.sort(p, axis=1)
            entropy, margin, best = -(p * logp).sum(axis=1), ordered[:, -1] - ordered[:, -2], logp.max(axis=1)
            values = {"mean_entropy": entropy, "max_entropy": entropy, "sum_logprob": best, "mean_logprob": best, "mean_margin": margin, "min_margin": margin}
            values |= {"hallucination_semantic": -np.expm1(best), "hallucination_discourse": entropy / np.log(len(RESPONSES)), "hallucination_content": 1 - margin}
            if "gradient" in needs:
                error = p - np.eye(len(RESPONSES), dtype=p.dtype)[p.argmax(axis=1)]
                values["gradient"] = np.einsum("nr,nd->nrd", error, points).reshape(len(texts), -1)
            if needs & SAMPLED:
                drawn = _drawn(p, pool.ids, seed)
                columns["sampled_tokens"] = np.ones_like(drawn, dtype=np.int32)
                if "bleu_variance" in needs:
                    values["bleu_variance"] = np.array([bleu_variance([RESPONSES[r] for r in row]) for row in drawn])
                values["sample_entropy"] = -np.take_along_axis(logp, drawn, axis=1).mean(axis=1)
                values["reward_gap"] = _gaps(features @ (load(model) - _base()), drawn)
            columns |= {name: values[name].astype(np.float32) for name in sorted(needs & LIVE)}
        if "embedding" in needs:
            columns["embedding"] = points / np.linalg.norm(points, axis=1, keepdims=True)
        return Signals(columns, needs & LIVE, self.bill(model, columns, needs))

    def pairs(self, model: Model, prompts: Sequence[Prompt], *, seed: int) -> Pairs:
        """The first two different ones of the responses that a call with this seed draws."""
        ids, texts = [p.id for p in prompts], [p.text for p in prompts]
        said = [[RESPONSES[r] for r in row] for row in _drawn(np.exp(_log_softmax(featurise(texts) @ load(model))), ids, seed)]
        places = [pair_of(row, [True] * SAMPLES) for row in said]
        drafts = {key: (row[two[0]], row[two[1]]) for key, row, two in zip(ids, said, places, strict=True) if two}
        counts = {"prompt_tokens": [len(text.split()) for text in texts], "response_tokens": [], "sampled_tokens": np.ones((len(ids), SAMPLES))}
        return Pairs(drafts, tuple(key for key in ids if key not in drafts), self.bill(model, counts, frozenset({"sample_entropy"})))

    def bill(self, model: Model, counts: Mapping[str, npt.ArrayLike], needs: frozenset[str]) -> Cost:
        """A multiplication and an addition for each active feature and output; responses are read off the logits for nothing, and so is
        all that is computed of them. counts: prompt_tokens, response_tokens and where responses are drawn sampled_tokens."""
        flops = forward_flops(counts["prompt_tokens"], model.base, outputs=(len(RESPONSES) if needs & LIVE else 0) + (DIMENSIONS if needs & {"embedding", "gradient"} else 0))
        read = int(np.sum(counts["prompt_tokens"])) if needs else 0
        generated = int(np.sum(counts["response_tokens"])) if needs & (GREEDY | JUDGED) else 0
        generated += int(np.sum(counts["sampled_tokens"])) if needs & SAMPLED else 0
        return Cost(seconds=flops / FLOPS_PER_SECOND, flops=flops, prompt_tokens=read, generated_tokens=generated)


@register("trainer", "toy")
@dataclass(frozen=True, kw_only=True)
class ToyTrainer:
    """Stochastic gradient descent on the cross entropy of the response, from the start's weights."""

    epochs: int = 6
    minibatch: int = 8
    learning_rate: float = 0.7

    def __call__(self, start: Model, prompts: Sequence[Prompt], annotations: Sequence[Annotation], out: Path, *, seed: int) -> Model:
        """Write weights.npy and config.json into the folder `out`, all or nothing. Same set of annotations and seed, same bytes."""
        if not annotations:
            raise DataError("nothing to train on: no annotation was given")
        pairs = sorted(zip(prompts, annotations, strict=True), key=lambda pair: pair[0].id)
        for prompt, annotation in pairs:
            if prompt.id != annotation.prompt_id:
                raise DataError(f"prompt {prompt.id} is paired with the annotation of {annotation.prompt_id}; give both in one order")
        targets = encode([annotation.response for _, annotation in pairs], [prompt.id for prompt, _ in pairs])
        texts = [prompt.text for prompt, _ in pairs]
        features, weights = featurise(texts, start.base), load(start).copy()
        rng = generator(seed, "toy", "train")
        updates = start.updates
        for _ in range(self.epochs):
            order = rng.permutation(len(texts))
            for first in range(0, len(order), self.minibatch):
                rows = order[first : first + self.minibatch]
                x = features[rows]
                error = np.exp(_log_softmax(x @ weights))
                error[np.arange(len(rows)), targets[rows]] -= 1
                weights -= np.float32(self.learning_rate / len(rows)) * (x.T @ error)
                updates += 1
        save(weights, Path(out))
        cost = self.bill(start.base, *self.lengths(start.base, texts, [annotation.response for _, annotation in pairs]))
        return Model(start.base, weights=str(out), kind="full", updates=updates, cost=cost)

    def lengths(self, base: str, prompts: Sequence[str], responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Words of the prompts, (n,); responses are read off the logits: 0, (n,)."""
        return np.array([len(text.split()) for text in prompts], dtype=np.int64), np.zeros(len(responses), dtype=np.int64)

    def bill(self, base: str, prompts: Sequence[int], responses: Sequence[int]) -> Cost:
        """Of training on examples of these lengths, each (n,)."""
        tokens = self.epochs * int(np.sum(prompts))
        flops = 2 * forward_flops(tokens, base, outputs=len(RESPONSES))  # the gradient costs as much as the forward pass
        return Cost(seconds=flops / FLOPS_PER_SECOND, flops=flops, trained_tokens=tokens)


@register("evaluator", "toy")
@dataclass(frozen=True, kw_only=True)
class ToyEvaluator:
    """Accuracy and negative log-likelihood (nats) of the gold response on a parquet file with the columns of `ToyPool`."""

    benchmark: str
    items: Path

    def __call__(self, model: Model, *, seed: int) -> Evaluation:
        """Columns id, correct, parsed, cut_off, nll, nll_sum, response_tokens, group and response (the model's own), each (n_items,)."""
        import pyarrow.parquet as pq

        if not Path(self.items).is_file():
            raise DataError(f"there is no test file {self.items}; write one with ToyPool(split='test')")
        table = pq.ParquetFile(self.items).read()
        if missing := {"id", "text", "group", "response"} - set(table.column_names):
            raise DataError(f"{self.items} lacks the column '{min(missing)}'; it needs id, text, group and response")
        ids, texts, groups, gold = (table.column(name).to_pylist() for name in ("id", "text", "group", "response"))
        targets = encode(gold, ids)
        logp = _log_softmax(featurise(texts, model.base) @ load(model))
        # The base gives many prompts equal logits: a random order that the text fixes decides, not the order of RESPONSES.
        tie = np.array([[_hash(f"{text} {response}") / 2**64 for response in RESPONSES] for text in texts]) * 1e-6
        chosen = (logp + tie).argmax(axis=1)
        nll = -logp[np.arange(len(texts)), targets].astype(np.float64)
        n = len(texts)
        columns = {
            "id": np.array(ids),
            "correct": chosen == targets,
            "parsed": np.ones(n, dtype=bool),
            "cut_off": np.zeros(n, dtype=bool),
            "nll": nll,
            "nll_sum": nll,
            "response_tokens": np.ones(n, dtype=np.int32),
            "group": np.array(groups),
            "response": np.array(RESPONSES)[chosen],
        }
        fingerprint = hashlib.sha256(json.dumps([ids, texts, gold]).encode()).hexdigest()[:16]
        words = np.array([len(text.split()) for text in texts], dtype=np.int64)
        return Evaluation(self.benchmark, fingerprint, columns, self.bill(model.base, words, np.ones_like(words), np.ones_like(words)))

    def lengths(self, base: str) -> tuple[np.ndarray, np.ndarray]:
        """Words of the items' prompts and of their gold responses, each (n_items,)."""
        import pyarrow.parquet as pq

        words = np.array([len(text.split()) for text in pq.read_table(self.items).column("text").to_pylist()], dtype=np.int64)
        return words, np.ones_like(words)

    def bill(self, base: str, prompts: np.ndarray, gold: np.ndarray, said: np.ndarray) -> Cost:
        """Of items of these lengths where the model says so many words, each (n_items,)."""
        flops = forward_flops(prompts, base, outputs=len(RESPONSES))
        return Cost(seconds=flops / FLOPS_PER_SECOND, flops=flops, prompt_tokens=int(prompts.sum()), generated_tokens=int(said.sum()))


@cache
def rules() -> dict[tuple[str, str], str]:
    """(verb, key) -> response: drawn once and for all."""
    rng = generator(0, "toy", "rules")
    return {(verb, key): str(rng.choice(RESPONSES)) for verb in VERBS for key in KEYS}


def featurise(texts: Sequence[str], base: str = "toy") -> Floats:
    """Counts of hashed words and neighbouring pairs (the first word's pair is with the start), each row of length 1; pairs only for
    toy-small. (n,) -> (n, FEATURES)."""
    table = np.zeros((len(texts), FEATURES), dtype=np.float32)
    for row, text in enumerate(texts):
        words = ["", *text.split()]
        for before, word in pairwise(words):
            table[row, _bucket(word)] += base != SMALL
            table[row, _bucket(f"{before} {word}")] += 1
        table[row] /= np.sqrt(np.maximum(_active(base) * (len(words) - 1), 1))
    return table


def load(model: Model) -> Floats:
    """The weights (FEATURES, responses) of a toy model; those of the base if it has no folder, whatever its name."""
    if model.weights is None:
        return _base()
    folder = Path(model.weights)
    try:
        config = json.loads((folder / "config.json").read_text())
        weights = np.load(folder / "weights.npy", allow_pickle=False)
    except (OSError, ValueError) as bad:
        raise DataError(f"{folder} holds no readable toy model ({bad}); delete the folder to train it again") from None
    if config != _config() or weights.shape != (FEATURES, len(RESPONSES)):
        raise DataError(f"{folder} is not a toy model of this version; delete the folder to train it again")
    return weights


def encode(responses: Sequence[str], ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Number of each response in RESPONSES. (n,) -> (n,)."""
    index = {response: number for number, response in enumerate(RESPONSES)}
    for name, response in zip(ids, responses, strict=True):
        if response not in index:
            raise DataError(f"the response {response!r} to prompt {name} is not one of the toy world's: {', '.join(RESPONSES)}")
    return np.array([index[response] for response in responses], dtype=np.int64)


def forward_flops(tokens: npt.ArrayLike, base: str, *, outputs: int) -> int:
    """Each active feature costs a multiplication and an addition per output."""
    return 2 * _active(base) * outputs * int(np.sum(tokens))


def _active(base: str) -> int:
    """Active features of a word."""
    return 1 if base == SMALL else 2


@cache
def _base() -> Floats:
    """Weights that know the pairs of the verbs in KNOWN and give the same logit to everything else. Read-only."""
    weights = np.zeros((FEATURES, len(RESPONSES)), dtype=np.float32)
    for (verb, key), response in rules().items():
        if verb in KNOWN:
            weights[_bucket(f"{verb} {key}"), RESPONSES.index(response)] += 8
    weights.flags.writeable = False
    return weights


@cache
def _projection() -> Floats:
    return generator(0, "toy", "projection").standard_normal((FEATURES, DIMENSIONS), dtype=np.float32)


def _config() -> dict:
    return {"model": "toy", "features": FEATURES, "responses": list(RESPONSES)}


def save(weights: Floats, out: Path) -> None:
    """A killed run leaves either the whole folder or none: write beside it, then rename."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        np.save(draft / "weights.npy", weights, allow_pickle=False)
        (draft / "config.json").write_text(json.dumps(_config()))
        if out.exists():
            shutil.rmtree(out)
        os.replace(draft, out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _draw(p: Floats, uniform: Floats) -> npt.NDArray[np.int64]:
    """Responses by the inverse of the cumulative distribution. (n, r), (n,) in [0, 1) -> (n,)."""
    total = p.astype(np.float64).cumsum(axis=1)
    return np.minimum((total <= uniform[:, None] * total[:, -1:]).sum(axis=1), p.shape[1] - 1)


def _drawn(p: Floats, ids: Sequence[str], seed: int) -> npt.NDArray[np.int64]:
    """SAMPLES responses to each prompt. (n, r) -> (n, SAMPLES)."""
    return np.column_stack([_draw(p, lottery(seed, ids, "toy", "sample", i)) for i in range(SAMPLES)])


def _gaps(rewards: Floats, drawn: npt.NDArray[np.int64]) -> Floats:
    """Distance of the rewards of the first two different responses; 0 where all are the same. (n, r), (n, SAMPLES) -> (n,)."""
    rows = np.arange(len(drawn))
    return np.abs(rewards[rows, drawn[:, 0]] - rewards[rows, drawn[rows, (drawn != drawn[:, :1]).argmax(axis=1)]])


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _zipf(n: int) -> Floats:
    weights = 1 / np.arange(1, n + 1)
    return weights / weights.sum()


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@lru_cache(maxsize=1 << 16)
def _bucket(piece: str) -> int:
    return _hash(f"feature {piece}") % FEATURES
