"""Decoding and options on a random two-layer Llama: nothing depends on how prompts are put together."""

import numpy as np
import pytest

from outlay.engine import Runtime
from outlay.engine.load import load
from outlay.errors import ConfigError, DataError

torch = pytest.importorskip("torch")

WORDS = [" ".join("abcdefghijklmnop"[(5 * i + j) % 16] * (1 + (i + j) % 3) for j in range(1 + i % 7)) for i in range(19)]
LONG = "once upon a time there was a "  # what texts that share more than the template begin with


@pytest.fixture(scope="module")
def loaded(random_llama):
    return load(random_llama, Runtime(device="cpu"))


@pytest.fixture(params=["llama", "hf"], autouse=True)
def code(request, monkeypatch):
    """Every test runs through our forward and through the model's own."""
    from outlay.engine import llama

    if request.param == "hf":
        monkeypatch.setattr(llama, "weights_of", lambda model: None)
    return request.param


def render(loaded, texts):
    from outlay.engine.render import format_of, prompts

    return prompts(loaded, format_of(loaded, "auto"), [f"p{i}" for i in range(len(texts))], texts)


def respond(loaded, texts, minibatch=7, new=12, **options):
    from outlay.engine.generate import EmbeddingSpec, generate

    options = {"embedding": EmbeddingSpec()} | options
    return generate(loaded, render(loaded, texts), stops=frozenset({2}), max_new_tokens=new, minibatch=minibatch, **options)


def same(one, other):
    assert one.tokens == other.tokens and one.texts == other.texts and one.stopped.tolist() == other.stopped.tolist()
    for name in one.signals:
        np.testing.assert_allclose(other.signals[name], one.signals[name], atol=1e-4, err_msg=name)
    np.testing.assert_allclose(other.embedding, one.embedding, atol=1e-5)


# Sharing a prefix


@pytest.mark.parametrize("options", [{}, {"pooling": "last"}, {"layer": 1}], ids=str)
def test_shared_prefix_changes_neither_tokens_signals_nor_embedding_where_the_user_span_covers_it(loaded, monkeypatch, options):
    from outlay.engine import network as module
    from outlay.engine.network import EmbeddingSpec

    texts = [LONG + w for w in WORDS]
    rows = render(loaded, texts)
    shared = module.common_prefix(rows)
    assert rows[0].user[0] < len(shared), "the test needs a prefix that reaches into the user's text"
    with_it = respond(loaded, texts, embedding=EmbeddingSpec(**options))
    monkeypatch.setattr(module, "common_prefix", lambda prompts: ())
    same(respond(loaded, texts, embedding=EmbeddingSpec(**options)), with_it)


def test_prefix_leaves_every_prompt_a_token_even_where_one_begins_the_others(loaded):
    from outlay.engine.network import common_prefix

    rows = render(loaded, [LONG + "abc"] * 2)
    assert common_prefix(rows) == rows[0].ids[:-1]
    assert common_prefix([rows[0]]) == ()
    assert respond(loaded, [LONG + "abc"] * 3).tokens == respond(loaded, [LONG + "abc"]).tokens * 3


def test_prefix_is_shared_only_where_it_saves_tokens(loaded):
    from outlay.engine.network import common_prefix

    assert common_prefix(render(loaded, ["a", "b"])) == ()  # "<bos>Q: " once instead of twice
    assert len(common_prefix(render(loaded, list("abcdefghijk")))) == 4


# Where responses end


def test_response_ends_before_the_first_of_the_strings(loaded):
    whole = respond(loaded, WORDS, new=24)
    texts = whole.texts
    long = [t for t in texts if len(t) > 8]
    strings = (long[0][3:5], long[1][6:8])
    cut = respond(loaded, WORDS, new=24, until=strings)
    hits = 0
    for i, text in enumerate(texts):
        at = min((text.find(s) for s in strings if s in text), default=None)
        hits += at is not None
        assert cut.texts[i] == text[:at]
        assert cut.tokens[i] == whole.tokens[i][: len(cut.tokens[i])]
        assert loaded.tokenizer.decode(cut.tokens[i], skip_special_tokens=True) == text[:at]
        assert cut.stopped[i] == (whole.stopped[i] or at is not None)
        assert cut.response_tokens[i] == (whole.response_tokens[i] if at is None else _first_length_with(loaded, whole.tokens[i], strings))
    assert 2 <= hits < len(texts)


def _first_length_with(loaded, tokens, strings):
    return next(n for n in range(len(tokens) + 1) if any(s in loaded.tokenizer.decode(tokens[:n], skip_special_tokens=True) for s in strings))


def test_signals_cover_the_tokens_of_the_string_that_ended_a_response(loaded):
    word = next(w for w, text in zip(WORDS, respond(loaded, WORDS, new=24).texts, strict=True) if len(text) > 8)
    whole = respond(loaded, [word], new=24)
    cut = respond(loaded, [word], new=24, until=[whole.texts[0][5:7]])
    assert len(cut.tokens[0]) < cut.response_tokens[0]
    same_length = respond(loaded, [word], new=int(cut.response_tokens[0]))
    for name, values in same_length.signals.items():
        np.testing.assert_allclose(cut.signals[name], values, atol=1e-5, err_msg=name)


def test_string_that_spans_tokens_or_lies_behind_the_window_is_found():
    """A string that begins within a token: the place is exact, the token that straddles is kept."""
    from outlay.engine.stops import Until

    class Tokenizer:
        def decode(self, tokens, skip_special_tokens):
            return "".join(["a", ".\n", "\n", "bc", ""][t] for t in tokens)

    class Loaded:
        tokenizer = Tokenizer()

    until = Until(Loaded, ("\n\n", "c"))
    said = [0] * 40 + [1]
    assert until.begins(said) is None
    assert until.begins([*said, 2]) == 41
    assert until.cut([*said, 2], 41) == said
    assert until.begins([4] * 20 + [3] + [4] * 3) == 1


def test_until_of_one_string_instead_of_a_list_is_refused(loaded):
    with pytest.raises(ConfigError, match="list of strings"):
        respond(loaded, WORDS, until="ab")
    with pytest.raises(ConfigError, match="empty"):
        respond(loaded, WORDS, until=["a", ""])


def test_each_finished_row_is_reported_once_with_its_tokens(loaded):
    seen = {}

    def note(row, tokens, stopped):
        assert row not in seen
        seen[row] = (tokens, stopped)

    out = respond(loaded, WORDS, on_finish=note)
    assert seen == {i: (t, bool(s)) for i, (t, s) in enumerate(zip(out.tokens, out.stopped, strict=True))}


# Options

CHOICES = [[(5, 6), (7,), (8, 9, 10, 11), (5, 9)], [(4,), (6,)], [(30, 31, 32, 33, 3)]]


def logprobs(loaded, texts, **options):
    from outlay.engine.choices import option_logprobs

    return option_logprobs(loaded, render(loaded, texts), [CHOICES[i % 3] for i in range(len(texts))], **{"minibatch": 3} | options)


@pytest.mark.parametrize("texts", [WORDS, [LONG + w for w in WORDS], WORDS[:1]], ids=["short", "shared prefix", "one"])
@pytest.mark.parametrize("minibatch", [1, 4, 32])
def test_option_logprobs_are_those_of_reading_each_option_alone(loaded, texts, minibatch):
    found = logprobs(loaded, texts, minibatch=minibatch)
    for i, row in enumerate(render(loaded, texts)):
        for option, value in zip(CHOICES[i % 3], found[i], strict=True):
            with torch.no_grad():
                logp = loaded.model(torch.tensor([[*row.ids, *option]])).logits[0].double().log_softmax(-1)
            alone = sum(float(logp[len(row.ids) - 1 + k, token]) for k, token in enumerate(option))
            assert value == pytest.approx(alone, abs=1e-4)


def test_options_report_each_row_once(loaded):
    seen = {}
    found = logprobs(loaded, WORDS, on_finish=lambda row, values: seen.setdefault(row, []).append(values))
    assert sorted(seen) == list(range(len(WORDS)))
    assert all(len(v) == 1 and v[0] is found[row] for row, v in seen.items())


def test_missing_empty_and_too_long_options_are_named(loaded):
    from outlay.engine.choices import option_logprobs

    rows = render(loaded, ["ab", "c"])
    for options, message in (([[(5,)], []], "'p1' has no options"), ([[(5,), ()], [(5,)]], "'p0' has an empty option"), ([[(5,)], [(5,) * 90]], "'p1'.*context of 96")):
        with pytest.raises(DataError, match=message):
            option_logprobs(loaded, rows, options, minibatch=2)
