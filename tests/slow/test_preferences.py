"""TRL's DPO on the shipped tiny model, the signals of pairs, and a study of preferences. About a minute and a half."""

import importlib.util
import json
import random

import numpy as np
import pyarrow.parquet as pq
import pytest

from outlay.config import validate
from outlay.engine import DPO, LLMScorer, Runtime
from outlay.engine.drafts import write
from outlay.engine.load import load
from outlay.engine.render import format_of, lengths, pairs, prompts
from outlay.engine.sample import sample
from outlay.errors import DataError
from outlay.evaluators import DraftOrder
from outlay.export import export
from outlay.measure import flops
from outlay.measure.nearness import nearness
from outlay.pools import pool_of
from outlay.pools.procedural import Skills
from outlay.store import Store, hash_folder
from outlay.study import run_study
from outlay.types import Annotation, Model, Prompt

pytestmark = [pytest.mark.slow, pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs trl")]
torch = pytest.importorskip("torch")

CPU, TINY, ROOM = Runtime(device="cpu", minibatch=64), Model("tiny"), 12
TABLE = Skills(size=60)()
ROWS = TABLE.to_pylist()
POOL = pool_of("skills", TABLE)
PROMPTS = {row["id"]: Prompt(row["id"], row["text"], row["group"]) for row in ROWS}
GOLD = {row["id"]: row["response"] for row in ROWS}


def scorer(minibatch=64, **options):
    return LLMScorer(runtime=Runtime(device="cpu", minibatch=minibatch), max_new_tokens=ROOM, **options)


def log_probability(model, prompt, response):
    """Of a response with its end token, by the library's own forward pass over one text."""
    loaded = load(model, CPU)
    (whole,) = pairs(loaded, format_of(loaded, "auto"), [prompt.id], [prompt.text], [response])
    ids = torch.tensor([whole.ids])
    with torch.no_grad():
        logps = loaded.model(input_ids=ids).logits[0].double().log_softmax(1)
    return sum(float(logps[at - 1, ids[0, at]]) for at in range(whole.answer, len(whole.ids)))


@pytest.fixture(scope="module")
def lesson():
    """(prompts, preferences): 24 pairs of the tiny model's own drafts, the nearer one to the gold answer preferred."""
    drafts = scorer().pairs(TINY, list(PROMPTS.values()), seed=0).drafts
    known = [(key, *sorted(two, key=lambda d: -nearness(d, GOLD[key]))) for key, two in drafts.items()]
    known = [(key, near, far) for key, near, far in known if nearness(near, GOLD[key]) > nearness(far, GOLD[key])][:24]
    assert len(known) == 24
    return [PROMPTS[key] for key, _, _ in known], [Annotation(key, "preference", chosen=near, rejected=far) for key, near, far in known]


def train(lesson, out, *, start=TINY, **options):
    return DPO(**{"runtime": CPU, "epochs": 4, "learning_rate": 1e-3} | options).train(start, *lesson, out, seed=3)


@pytest.fixture(scope="module")
def trained(lesson, tmp_path_factory):
    return train(lesson, tmp_path_factory.mktemp("dpo") / "model")


def margins(model, lesson):
    """How much likelier the model has made the chosen than the rejected, beside the base (nats)."""
    def ratio(prompt, text):
        return log_probability(model, prompt, text) - log_probability(TINY, prompt, text)

    return np.array([ratio(p, a.chosen) - ratio(p, a.rejected) for p, a in zip(*lesson, strict=True)])


def test_the_loss_falls_from_log_2_and_the_chosen_draft_becomes_likelier(lesson, trained):
    model, course = trained
    assert course.losses[0] == pytest.approx(np.log(2), abs=1e-6) and np.mean(course.losses[-3:]) < 0.6
    found = margins(model, lesson)
    assert found.mean() > 2 and (found > 0).mean() > 0.9


def test_the_same_pairs_in_another_order_give_the_same_bytes(lesson, trained, tmp_path):
    train([side[::-1] for side in lesson], tmp_path / "again")
    assert hash_folder(tmp_path / "again") == hash_folder(tmp_path.__class__(trained[0].weights))


def test_the_reference_is_the_base_also_where_training_goes_on_from_adapters(lesson, trained, tmp_path):
    """All pairs in one minibatch: the first loss is that of the adapters so far, measured from the base."""
    course = train(lesson, tmp_path / "on", start=trained[0], minibatch=24, epochs=1, beta=0.2)[1]
    assert course.losses[0] == pytest.approx(np.log1p(np.exp(-0.2 * margins(trained[0], lesson))).mean(), abs=1e-3)
    assert course.losses[0] < 0.6


def test_the_ledger_has_both_sides_in_every_epoch_and_one_reading_by_the_reference(lesson, trained):
    texts, sides = [p.text for p in lesson[0]] * 2, [getattr(a, side) for side in ("chosen", "rejected") for a in lesson[1]]
    asked, said = lengths("tiny", "auto", texts, sides)
    whole, cost = (asked + said).tolist(), trained[0].cost
    arch = load(TINY, CPU).arch
    assert cost.trained_tokens == 4 * sum(whole)
    assert cost.flops == 4 * flops.train_lora(arch, whole, said, arch.lora_parameters(16)) + flops.forward(arch, whole, int(said.sum()))
    assert cost.seconds > 0 and cost.labels == 0


def test_a_draft_that_would_be_cut_off_is_refused(lesson, tmp_path):
    with pytest.raises(DataError, match="would be cut off at 20"):
        train(lesson, tmp_path / "w", max_tokens=20)
    assert not (tmp_path / "w").exists()


def test_training_leaves_the_global_generators_alone(lesson, tmp_path):
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state().clone()
    train([side[:8] for side in lesson], tmp_path / "w", epochs=1)
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[2])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


def test_drafts_do_not_depend_on_minibatch_company_or_order():
    some = list(PROMPTS.values())
    whole = scorer().pairs(TINY, some, seed=5)
    assert whole.drafts and whole.unfit and set(whole.drafts) | set(whole.unfit) == set(PROMPTS)
    few = scorer(minibatch=5).pairs(TINY, some[20:40][::-1], seed=5)
    assert few.drafts == {key: whole.drafts[key] for key in few.drafts} and set(few.unfit) <= set(whole.unfit)
    assert whole.drafts != scorer().pairs(TINY, some, seed=6).drafts


def test_the_reward_gap_is_that_of_the_pair_that_would_be_shown(trained):
    model, needs = trained[0], frozenset({"reward_gap"})
    gaps, shown = scorer()(model, POOL, needs, seed=9).columns["reward_gap"], scorer().pairs(model, list(PROMPTS.values()), seed=9)
    assert len(shown.drafts) > 10
    for row, key in enumerate(POOL.ids):
        two = [log_probability(model, PROMPTS[key], d) - log_probability(TINY, PROMPTS[key], d) for d in shown.drafts.get(key, ())]
        assert gaps[row] == pytest.approx(abs(two[0] - two[1]) if two else 0, abs=1e-3)


def test_the_base_has_no_reward_gaps_and_pays_nothing_for_them():
    found = scorer()(TINY, POOL, frozenset({"reward_gap"}), seed=0)
    assert not found.columns["reward_gap"].any() and (found.cost.flops, found.cost.generated_tokens) == (0, 0)


def test_entropy_is_the_mean_surprise_of_the_sampled_responses():
    """Against the likelihood of the texts, where they are read as the tokens that were drawn."""
    loaded = load(TINY, CPU)
    form = format_of(loaded, "auto")
    asked = prompts(loaded, form, POOL.ids, POOL.texts)
    said = sample(loaded, asked, stops=form.stops, max_new_tokens=ROOM, minibatch=64, samples=3, temperature=1.0, seed=4, logprobs=True)
    compared = 0
    for row, (key, texts) in enumerate(zip(POOL.ids, said.texts, strict=True)):
        for i, text in enumerate(texts):
            coded = loaded.tokenizer(form.lead + text, add_special_tokens=False).input_ids
            if said.ended[row, i] and len(coded) + 1 == said.tokens[row, i] and text == text.strip() and text:
                compared += 1
                assert said.logprobs[row, i] == pytest.approx(log_probability(TINY, PROMPTS[key], text), abs=1e-3)
    assert compared > 60
    found = scorer(samples=3)(TINY, POOL, frozenset({"sample_entropy"}), seed=4).columns["sample_entropy"]
    np.testing.assert_allclose(found, -said.logprobs.mean(axis=1), rtol=1e-5)


def test_the_order_of_held_out_drafts_is_a_coin_for_the_base_and_learned_on_what_was_trained(lesson, trained, tmp_path):
    keys = {p.id for p in lesson[0]}
    pq.write_table(TABLE.filter([key in keys for key in POOL.ids]), tmp_path / "items.parquet")
    test = DraftOrder(benchmark="order", items=tmp_path / "items.parquet", runtime=CPU, max_new_tokens=ROOM)
    base, found = test(TINY), test(trained[0])
    assert base.items == found.items and len(base.columns["correct"]) == 24
    assert 4 <= base.columns["correct"].sum() <= 20 and found.columns["correct"].mean() > 0.9
    np.testing.assert_allclose(np.sort(found.columns["margin"]), np.sort(margins(trained[0], lesson)), atol=1e-3)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The config of a study of a few pairs, and the run directory of it when finished."""
    config = validate({
        "name": "small", "pool": {"use": "skills", "size": 60}, "model": "tiny", "scorer": {"use": "llm", "max_new_tokens": ROOM}, "judgements": "preferences", "oracle": "judge",
        "trainer": {"use": "dpo", "epochs": 1}, "evaluators": {"held_out": {"use": "heldout", "max_new_tokens": ROOM, "source": {"use": "skills", "split": "test", "size": 20}}},
        "runtime": {"device": "cpu", "minibatch": 64}, "strategies": ["apl"], "rounds": [2], "budgets": [12], "reference_curve": False, "random_sets": 3, "executor": "serial",
    })  # fmt: skip
    return config, run_study(config, tmp_path_factory.mktemp("study") / "run", quiet=True)


def chosen(root):
    """What does not depend on the clock: choices, drafts, judgements, and hashes of models."""
    found = {}
    for path in sorted(root.glob("campaigns/*/round-*/*.json")):
        record = json.loads(path.read_text())
        found[path.relative_to(root).as_posix()] = {name: record.get(name) for name in ("ids", "drafts", "unfit", "annotations", "digest")}
    return found


@pytest.mark.parametrize("stage", ["round-001/model.json", "round-002/signals.parquet", "round-002/pairs.json"])
def test_a_study_cut_off_between_stages_goes_on_to_the_same_models(study, tmp_path, stage, monkeypatch):
    config, whole = study
    before = Store.write

    def cut(store, path, record):
        before(store, path, record)
        if path.endswith(stage):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", cut)
        with pytest.raises(KeyboardInterrupt):
            run_study(config, tmp_path / "run", quiet=True)
    run_study(config, tmp_path / "run", quiet=True)
    assert chosen(tmp_path / "run") == chosen(whole) and len(chosen(whole)) == 10


def test_a_model_that_is_exported_whole_answers_as_the_trained_one_and_is_a_base(study, tmp_path):
    root = study[1]
    (name,) = json.loads((root / "study.json").read_text())["campaigns"]
    export(root, name, tmp_path / "out", merge=True)
    weights = json.loads((root / f"campaigns/{name}/round-002/model.json").read_text())["weights"]
    both = Model(str(tmp_path / "out/model")), Model("tiny", str(root / weights), "lora")
    said = [write(model, list(PROMPTS.values()), CPU, max_new_tokens=ROOM) for model in both]
    assert said[0] == said[1] and len(set(said[0])) > 10
    rows = [json.loads(line) for line in (tmp_path / "out/dataset/train.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and {"prompt", "chosen", "rejected"} <= rows[0].keys()
    with pytest.raises(DataError, match=r"'response|has a preference, and trainer 'sft' learns from responses"):
        from outlay.engine import SFT

        SFT(runtime=CPU)(TINY, [Prompt("a", "b")], [Annotation("a", "preference", chosen="x", rejected="y")], tmp_path / "w")
