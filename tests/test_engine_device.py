"""What the Llama network does differently on a GPU, run on the CPU: padding in attention, all rows together, steps that a graph can record."""

import logging

import numpy as np
import pytest

from outlay.engine import Runtime, graphs
from outlay.engine.generate import EmbeddingSpec, generate
from outlay.engine.llama import LlamaNetwork, _agrees, weights_of
from outlay.engine.load import load
from outlay.engine.render import format_of, prompts

torch = pytest.importorskip("torch")

TEXTS = [" ".join("abcdefghijklmnop"[(5 * i + j) % 16] * (1 + (i + j) % 3) for j in range(1 + i % 7)) for i in range(19)]
BEGINNING = "once upon a time there was a "


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def loaded(random_llama, request):
    return load(random_llama, Runtime(device="cpu", dtype=request.param))


def render(loaded, texts):
    return prompts(loaded, format_of(loaded, "auto"), [f"p{i}" for i in range(len(texts))], texts)


def respond(loaded, texts, **spec):
    return generate(loaded, render(loaded, texts), stops=frozenset({2}), max_new_tokens=9, minibatch=7, embedding=EmbeddingSpec(**spec))


@pytest.mark.parametrize(("beginning", "spec"), [("", {}), (BEGINNING, {}), (BEGINNING, {"pooling": "last", "layer": 1})], ids=["nothing shared", "shared beginning", "last position"])
def test_padding_on_a_gpu_changes_no_answer(loaded, monkeypatch, beginning, spec):
    texts = [beginning + text for text in TEXTS]
    packed = respond(loaded, texts, **spec)
    monkeypatch.setattr(LlamaNetwork, "on_cpu", False)
    padded = respond(loaded, texts, **spec)
    if loaded.model.dtype == torch.float32:
        assert padded.tokens == packed.tokens
        for name in packed.signals:
            np.testing.assert_allclose(padded.signals[name], packed.signals[name], atol=1e-4, err_msg=name)
    np.testing.assert_allclose(padded.embedding, packed.embedding, atol=1e-5 if loaded.model.dtype == torch.float32 else 2e-2)


def opened(loaded, rows):
    network = LlamaNetwork(weights_of(loaded.model), rows[0].ids[:3], None, rows=16, longest=90, decode=True)
    step = network.admit(sorted(rows, key=lambda r: -len(r.ids)))
    return network, step.logits.argmax(1).numpy()


def test_room_for_more_rows_and_tokens_in_a_recorded_step_changes_nothing(loaded):
    rows = render(loaded, [BEGINNING + text for text in TEXTS[:5]])
    with torch.inference_mode():
        network, tokens = opened(loaded, rows)
        inputs = [torch.zeros(16, dtype=torch.long) for _ in range(2)]
        inputs[0][:5], inputs[1][:5] = torch.as_tensor(tokens), torch.as_tensor(network.lengths)
        roomy = [network.decoded(*inputs, 90).logits[:5] for _ in range(2)]
        plain = network.step(tokens).logits
    assert torch.equal(*roomy), "a repeated step must write what is there already"
    torch.testing.assert_close(roomy[0], plain, atol=1e-4 if loaded.model.dtype == torch.float32 else 0.1, rtol=0)


def test_a_step_that_cannot_be_recorded_is_taken_as_before(loaded, caplog):
    rows = render(loaded, TEXTS[:5])
    said = []
    for recording in (False, True):
        with torch.inference_mode(), caplog.at_level(logging.WARNING):
            network, tokens = opened(loaded, rows)
            network.graphs = graphs.Graphs(0.0) if recording else None  # there is no CUDA on a CPU
            for _ in range(graphs.PATIENCE + 2):
                tokens = network.step(tokens).logits.argmax(1).numpy()
            said.append(tokens.tolist())
    assert said[0] == said[1] and not network.graphs.usable
    assert "not recorded as a CUDA graph" in caplog.text


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["the model's own matrices", "copies side by side"])
def test_where_the_matrices_lie_changes_no_answer(loaded, monkeypatch, share):
    from outlay.engine import weights

    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(weights, "MEMORY_SHARE", share)
    read = weights.read(loaded.model)
    assert _agrees(loaded.model, read)
