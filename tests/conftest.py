"""What all tests share. With OUTLAY_NO_SKIP=1 a skip is a failure, unless its reason begins with "expected:"."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import copy
from pathlib import Path

import pytest

CHARACTERS = "\n abcdefghijklmnopqrstuvwxyz?:QA"
CHAT = "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}Q: {{ m['content'] }}\n{% else %}A: {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}A: {% endif %}"

SMALL = {
    "name": "small",
    "pool": {"use": "toy", "size": 120},
    "pool_per_seed": 90,
    "model": "toy",
    "scorer": "toy",
    "trainer": {"use": "toy", "epochs": 2},
    "evaluators": {"held_out": {"use": "toy", "source": {"use": "toy", "size": 40, "split": "test"}}},
    "strategies": ["random", "mean_entropy"],
    "rounds": [1, 2],
    "starts": ["cold", "warm_all"],
    "seeds": [0],
    "budgets": [8],
    "random_sets": 3,
    "shard": 50,
    "executor": "serial",
}


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: a real LLM, kills, a browser; run by `make test-slow`")


def _forbid(report):
    """Turn a skip into a failure, where skips are not allowed."""
    if os.environ.get("OUTLAY_NO_SKIP") != "1" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith("expected:"):
        report.outcome, report.longrepr = "failed", f"{report.nodeid} was skipped, and OUTLAY_NO_SKIP=1 forbids it: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    _forbid(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    _forbid(report)
    return report


@pytest.fixture
def toy_raw():
    """A toy study of a second as a mapping, to change at will."""
    return copy.deepcopy(SMALL)


@pytest.fixture(scope="session")
def toy_study():
    """toy_study(seeds=[0, 1]) -> the config of a toy study of a second, with these keys changed."""
    from outlay.config import validate

    return lambda **changes: validate(copy.deepcopy(SMALL) | changes)


@pytest.fixture(scope="session")
def toy_run(toy_study, tmp_path_factory):
    """The run directory of a finished small study with facility location. Read only: tests that change a run make their own."""
    from outlay.study import run_study

    config = toy_study(strategies=["random", "mean_entropy", "facility_location"], budgets=[8, 16])
    return run_study(config, tmp_path_factory.mktemp("runs") / "finished", quiet=True)


@pytest.fixture(scope="session")
def outlay_data():
    """The folder that OUTLAY_DATA names: real data sets, among them flan_v2_cot."""
    if "OUTLAY_DATA" not in os.environ:
        pytest.skip("OUTLAY_DATA is not set; it names the folder that holds flan_v2_cot")
    return Path(os.environ["OUTLAY_DATA"])


@pytest.fixture(scope="session")
def random_llama(tmp_path_factory):
    """The address of a random two-layer Llama of 32 characters. Large weights, so that it is sure enough of its tokens for ties to be out of reach."""
    torch = pytest.importorskip("torch")
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from outlay.types import Model

    folder = tmp_path_factory.mktemp("base", numbered=False) / "base0"
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")
    fast.chat_template = CHAT
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=96, initializer_range=0.3, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = LlamaForCausalLM(config)
        model.lm_head.weight.data[2] += 0.15  # some responses end by themselves
    model.save_pretrained(folder)
    return Model(str(folder))
