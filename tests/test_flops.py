"""FLOPs by formula against torch's counter (eager attention: the counter sees nothing of fused attention on a CPU)."""

import pytest

from outlay.measure import flops

torch = pytest.importorskip("torch")

LENGTH, ROWS = 24, 3


def llama(**sizes):
    from transformers import LlamaConfig, LlamaForCausalLM

    options = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(**(options | sizes), attn_implementation="eager")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config), flops.Arch.from_config(config.to_dict())


def counted(run):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def ids():
    return torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH) % 97


def train_step(model, response):
    """Logits at the last `response` positions only, as the engine does it."""
    model(ids(), logits_to_keep=response).logits.float().logsumexp(-1).sum().backward()


@pytest.mark.parametrize("sizes", [{}, {"tie_word_embeddings": True}, {"num_key_value_heads": 1, "head_dim": 24}, {"vocab_size": 4000}])
def test_forward_is_what_the_counter_sees(sizes):
    model, arch = llama(**sizes)
    with torch.no_grad():
        seen = counted(lambda: model(ids(), logits_to_keep=5))
    assert flops.forward(arch, [LENGTH] * ROWS, 5 * ROWS) == pytest.approx(seen, rel=0.05)


@pytest.mark.parametrize("sizes", [{}, {"tie_word_embeddings": True}])
def test_full_training_costs_three_forward_passes(sizes):
    model, arch = llama(**sizes)
    seen = counted(lambda: train_step(model, 6))
    assert flops.train_full(arch, [LENGTH] * ROWS, [6] * ROWS) == pytest.approx(seen, rel=0.05)


@pytest.mark.parametrize("r", [4, 16])
def test_lora_training_is_not_six_times_the_parameters(r):
    from peft import LoraConfig, get_peft_model

    model, arch = llama(num_hidden_layers=4)
    model = get_peft_model(model, LoraConfig(r=r, target_modules="all-linear"))
    adapters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert adapters == arch.lora_parameters(r)
    seen = counted(lambda: train_step(model, 6))
    assert flops.train_lora(arch, [LENGTH] * ROWS, [6] * ROWS, adapters) == pytest.approx(seen, rel=0.05)


def test_decoding_does_not_read_the_prompt_again():
    model, arch = llama()
    prompt, new = 10, 4

    def decode():
        with torch.no_grad():
            row = ids()[:1, : prompt + new]
            cache = model(row[:, :prompt], logits_to_keep=1, use_cache=True).past_key_values
            for step in range(new - 1):
                model(row[:, prompt + step : prompt + step + 1], past_key_values=cache, use_cache=True)

    assert flops.scoring(arch, [prompt], [new]) == pytest.approx(counted(decode), rel=0.05)


def test_price_of_rows_adds_up():
    _, arch = llama()
    whole = flops.scoring(arch, [10, 20, 7], [3, 1, 0])
    assert whole == sum(flops.scoring(arch, [t], [g]) for t, g in ((10, 3), (20, 1), (7, 0)))


def test_arch_reads_the_spelling_of_other_families():
    arch = flops.Arch.from_config({"model_type": "gpt2", "n_embd": 8, "n_layer": 3, "n_head": 2, "vocab_size": 11})
    assert arch.parameters == 3 * (4 * 8 * 8 + 2 * 8 * 32)
