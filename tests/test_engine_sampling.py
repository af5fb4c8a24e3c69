"""Gradient sketches against autograd, and sampled responses, on the shipped tiny model."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from outlay import seeds
from outlay.engine import LLMScorer, Runtime
from outlay.engine.load import load
from outlay.engine.render import format_of, prompts
from outlay.errors import ConfigError
from outlay.measure import flops
from outlay.measure.bleu import bleu_variance
from outlay.pools.procedural import Skills
from outlay.types import Cost, Model, Pool

torch = pytest.importorskip("torch")

TINY, CPU = Model("tiny"), Runtime(device="cpu")
GRADIENT, BLEU = frozenset({"gradient"}), frozenset({"bleu_variance"})
N, ROOM = 24, 12


@pytest.fixture(scope="module")
def pool():
    table = Skills(size=N)().select(["id", "text", "group"])
    return Pool("skills", table)


def scored(pool, needs, minibatch=8, seed=0, **options):
    return LLMScorer(runtime=Runtime(device="cpu", minibatch=minibatch), max_new_tokens=ROOM, **options)(TINY, pool, needs, seed=seed)


@pytest.fixture(scope="module")
def exact(pool):
    """d(negative log-likelihood of the greedy response)/d(LM head) of each prompt, by autograd. (n, v * d)."""
    loaded = load(TINY, CPU)
    form = format_of(loaded, "auto")
    rows = []
    for prompt in prompts(loaded, form, pool.ids, pool.texts):
        ids = torch.tensor([prompt.ids])
        out = loaded.model.generate(ids, max_new_tokens=ROOM, do_sample=False, eos_token_id=sorted(form.stops), pad_token_id=0)
        with torch.no_grad():
            hidden = loaded.model.model(out[:, :-1]).last_hidden_state[0, ids.shape[1] - 1 :]
        head = loaded.model.lm_head.weight.detach().clone().requires_grad_()
        torch.nn.functional.cross_entropy(hidden @ head.T, out[0, ids.shape[1] :], reduction="sum").backward()
        rows.append(head.grad.numpy().ravel())
    return np.array(rows)


@pytest.mark.parametrize("width", [512, 4096])
def test_sketched_gradients_keep_norms_and_inner_products_of_autograd(pool, exact, width):
    """The stated bound is sqrt(11 / width) of the product of the lengths for one standard deviation; seen is about a third of it."""
    found = scored(pool, GRADIENT, gradient_width=width).columns["gradient"].astype(np.float64)
    assert found.shape == (N, width)
    lengths = np.linalg.norm(exact, axis=1)
    error = (found @ found.T - exact @ exact.T) / np.outer(lengths, lengths)
    bound = np.sqrt(11 / width)
    assert np.sqrt((error**2).mean()) < bound / 2 and np.abs(error).max() < 2 * bound
    assert np.abs(np.linalg.norm(found, axis=1) / lengths - 1).max() < bound


def test_a_sketch_is_the_same_linear_map_whatever_else_is_asked_for(pool):
    """To rounding: the sketch of a sum is the sum of the sketches, so minibatches, company and other signals change nothing."""
    alone = scored(pool, GRADIENT).columns["gradient"]
    for minibatch in (1, 32):
        other = scored(pool, GRADIENT | {"mean_entropy", "embedding"}, minibatch)
        np.testing.assert_allclose(other.columns["gradient"], alone, atol=1e-3 * np.abs(alone).max())
    few = scored(pool.take([3, 7]), GRADIENT).columns["gradient"]
    np.testing.assert_allclose(few, alone[[3, 7]], atol=1e-3 * np.abs(alone).max())


def test_count_sketches_are_unbiased_and_no_bucket_is_fuller_than_it_must_be():
    from outlay.engine.gradient import count_sketch

    sketch = count_sketch("token", 1000, 64, torch.device("cpu"))
    image = sketch(torch.eye(1000))
    assert (image.abs().sum(1) == 1).all()  # every coordinate goes to one bucket, whole
    assert image.abs().sum(0).max() == 16  # 1000 / 64, rounded up
    rng = seeds.generator(0, "test")
    a, b = rng.standard_normal((2, 1000)).astype(np.float32)
    products = []
    for width in range(40, 240):  # every width is another draw
        x, y = count_sketch("token", 1000, width, torch.device("cpu"))(torch.tensor(np.array([a, b])))
        products.append(float(x @ y))
    assert abs(np.mean(products) - a @ b) < 4 * np.std(products) / np.sqrt(len(products))


def test_a_prompt_that_the_model_is_sure_of_has_a_short_gradient(pool):
    found = scored(pool, GRADIENT | {"sum_logprob"}).columns
    order = np.argsort(found["sum_logprob"])
    lengths = np.linalg.norm(found["gradient"], axis=1)[order]
    assert lengths[: N // 3].mean() > 2 * lengths[-N // 3 :].mean()


# -- sampling --------------------------------------------------------------------------------------------------------------


def responses(pool, minibatch=8, samples=3, seed=0, temperature=1.0):
    from outlay.engine.sample import sample

    loaded = load(TINY, CPU)
    form = format_of(loaded, "auto")
    rendered = prompts(loaded, form, pool.ids, pool.texts)
    return sample(loaded, rendered, stops=form.stops, max_new_tokens=ROOM, minibatch=minibatch, samples=samples, temperature=temperature, seed=seed)


@pytest.mark.parametrize("minibatch", [1, 5, 64])
def test_any_minibatch_samples_the_same_responses(pool, minibatch):
    assert responses(pool, minibatch).texts == responses(pool).texts


def test_order_company_and_number_of_samples_do_not_change_a_sample(pool):
    whole = responses(pool).texts
    assert responses(pool.take(range(N)[::-1])).texts == whole[::-1]
    assert responses(pool.take([2, 9])).texts == [whole[2], whole[9]]
    assert [said[:3] for said in responses(pool, samples=5).texts] == whole


def test_samples_and_seeds_differ_but_near_temperature_0_all_say_the_greedy_response(pool):
    from outlay.engine.generate import generate

    assert sum(len(set(said)) > 1 for said in responses(pool).texts) > N // 4
    assert responses(pool, seed=1).texts != responses(pool).texts
    loaded = load(TINY, CPU)
    form = format_of(loaded, "auto")
    out = generate(loaded, prompts(loaded, form, pool.ids, pool.texts), stops=form.stops, max_new_tokens=ROOM, minibatch=8)
    greedy = loaded.tokenizer.batch_decode(out.tokens, skip_special_tokens=True)
    cold = responses(pool, temperature=1e-4)
    assert cold.texts == [[said] * 3 for said in greedy]
    np.testing.assert_array_equal(cold.tokens, out.response_tokens[:, None].repeat(3, axis=1))


def test_tokens_are_drawn_with_their_probabilities_and_never_with_probability_0():
    from outlay.engine.sample import draw

    logits = torch.log(torch.tensor([0.0, 0.5, 0.0, 0.2, 0.3, 0.0]))
    keys = torch.from_numpy(seeds.generator(0, "test").integers(1 << 63, size=20000))
    many = draw(logits.expand(20000, -1), keys, 0.5).bincount(minlength=6).numpy()
    expected = np.array([0.25, 0.04, 0.09]) / 0.38 * 20000
    assert many[[0, 2, 5]].sum() == 0 and ((many[[1, 3, 4]] - expected) ** 2 / expected).sum() < 13.8  # 2 degrees of freedom, 99.9 percent


def test_noise_is_gumbel_and_that_of_the_published_generator():
    """SplitMix64 of state 0 begins with 0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4 (its reference implementation)."""
    from outlay.engine.sample import noise

    for value, word in zip(noise(torch.tensor([0]), 2)[0].tolist(), (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4), strict=True):
        assert value == pytest.approx(-np.log(-np.log(((word >> 12) + 0.5) / 2**52)), rel=1e-12)
    keys = torch.from_numpy(seeds.generator(0, "test").integers(1 << 63, size=200))
    found = noise(keys, 1000).numpy()
    assert stats.kstest(found.ravel(), "gumbel_r").pvalue > 1e-3
    for other in (found[1:, :], found[:, 1:]):  # neither neighbouring columns nor rows go together
        here = found[: len(other), : other.shape[1]]
        assert abs(np.corrcoef(here.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(other.size)


def test_rounding_rarely_changes_a_draw():
    """Two minibatches' logits differ by rounding. The inverse of the cumulative distribution would change ten of these 4,000 draws."""
    from outlay.engine.sample import draw

    rng = seeds.generator(0, "test")
    logits = torch.from_numpy(rng.standard_normal((200, 2000)).astype(np.float32)).repeat(20, 1)
    other = logits + torch.from_numpy((1e-4 * rng.standard_normal((200, 2000))).astype(np.float32)).repeat(20, 1)
    keys = torch.from_numpy(rng.integers(1 << 63, size=4000))
    assert (draw(logits, keys, 1.0) != draw(other, keys, 1.0)).sum() <= 3  # each with a chance of about 1e-4


def test_bleu_variance_is_that_of_the_sampled_texts_and_pays_for_its_own_pass_only(pool):
    signals = scored(pool, BLEU, samples=3)
    said = responses(pool)
    np.testing.assert_allclose(signals.columns["bleu_variance"], [bleu_variance(texts) for texts in said.texts], rtol=1e-6)
    assert signals.columns["response_tokens"].sum() == 0 and signals.cost.generated_tokens == said.tokens.sum()
    lengths, sizes = signals.columns["prompt_tokens"], load(TINY, CPU).arch
    assert signals.cost.flops == flops.sampling(sizes, lengths, said.tokens) < flops.scoring(sizes, lengths, said.tokens.sum(axis=1))
    assert signals.cost.prompt_tokens == lengths.sum()


def test_the_bill_of_several_signals_leaves_out_what_each_did_not_need(pool):
    scorer = LLMScorer(runtime=CPU, max_new_tokens=ROOM, samples=3)
    needs = GRADIENT | BLEU | {"mean_entropy"}
    signals = scorer(TINY, pool, needs)
    counts = {name: signals.columns[name] for name in ("prompt_tokens", "response_tokens", "sampled_tokens")}
    assert replace(scorer.bill(TINY, counts, needs), seconds=signals.cost.seconds) == signals.cost
    plain, gradient, bleu = (scorer.bill(TINY, counts, part) for part in (frozenset({"mean_entropy"}), GRADIENT, BLEU))
    assert plain.flops < gradient.flops < 1.1 * plain.flops
    assert replace(gradient + bleu, seconds=signals.cost.seconds) == signals.cost
    assert scorer.bill(TINY, counts, frozenset()) == Cost()


def test_an_empty_pool_has_empty_columns_of_the_right_width(pool):
    columns = scored(pool.take([]), GRADIENT | BLEU | {"embedding"}).columns
    assert columns["gradient"].shape == (0, 512) and columns["bleu_variance"].shape == (0,)


@pytest.mark.parametrize("option", [{"samples": 1}, {"temperature": 0.0}, {"gradient_width": 1}])
def test_options_that_cannot_work_are_refused(option):
    with pytest.raises(ConfigError, match=next(iter(option))):
        LLMScorer(**option)
