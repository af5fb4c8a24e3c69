"""`outlay eval` on the shipped tiny model and a small BBH of our own: files, resume, refusals, rescoring."""

import csv
import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from outlay import cli, registry
from outlay.config import validate
from outlay.errors import ConfigError, DataError, RunConflict
from outlay.evaluation import evaluate, load, summary
from outlay.evaluation.config import EvalConfig
from outlay.evaluation.progress import Progress
from outlay.evaluation.rescore import rescore
from outlay.store import Store
from outlay.study import check
from outlay.types import Evaluation, Model

from .bbh_folder import QUESTIONS, make

THREE = tuple(QUESTIONS)
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp("bbh") / "BIG-Bench-Hard")


@pytest.fixture
def config(folder, tmp_path):
    """config(shots=2) -> a config of the small BBH with these keys changed."""
    base = {"model_name": "tiny", "bbh_dir": folder, "output_dir": tmp_path / "out", "tasks": THREE, "BBH_MAX_TOKEN_LENGTH": 8, "threads": 1, "shots": 2}
    return lambda **changes: EvalConfig.model_validate(base | changes)


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """The output folder of a finished evaluation. Read only."""
    out = tmp_path_factory.mktemp("finished")
    evaluate(EvalConfig(model_name="tiny", bbh_dir=folder, output_dir=out, tasks=THREE, BBH_MAX_TOKEN_LENGTH=8, threads=1, shots=2), "bbh", quiet=True)
    return out


def content(out):
    """File name -> bytes, but the lock."""
    return {p.name: p.read_bytes() for p in sorted(out.iterdir()) if not p.name.startswith(".lock")}


def lines(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


# -- what is written ---------------------------------------------------------------------------------------------------------


def test_each_task_gets_text_and_lines_and_all_get_one_summary(finished):
    names = {f"{task}_tiny.{ending}" for task in THREE for ending in ("txt", "jsonl")}
    assert set(content(finished)) == names | {"summary_bbh_tiny.json", "summary_bbh_tiny.csv", "settings_bbh_tiny.json"}


def test_a_line_holds_prompt_response_answer_and_verdict(finished):
    for task in THREE:
        rows = lines(finished / f"{task}_tiny.jsonl")
        assert [row["id"] for row in rows] == [f"{task}/{n}" for n in range(4)]
        for row in rows:
            assert {"prompt", "response", "answer", "target", "correct", "lenient", "parsed", "cut_off", "too_long", "tokens", "prompt_tokens"} <= set(row)
            assert row["prompt"].endswith("A: Let's think step by step.")
            assert 1 <= row["tokens"] <= 8


def test_the_prompt_is_not_echoed_into_the_answers_text(finished):
    text = (finished / "navigate_tiny.txt").read_text()
    assert text.count("\nQ: ") == 4
    assert "step by step" not in text


def test_the_summary_counts_what_the_lines_say(finished):
    with open(finished / "summary_bbh_tiny.csv", newline="") as file:
        table = {row["task"]: row for row in csv.DictReader(file)}
    assert list(table) == [*THREE, "macro", "micro"]
    rows = {task: lines(finished / f"{task}_tiny.jsonl") for task in THREE}
    for task in THREE:
        assert int(table[task]["n"]) == 4
        assert float(table[task]["accuracy"]) == 100 * sum(r["correct"] for r in rows[task]) / 4
        assert int(table[task]["unparsed"]) == sum(not r["parsed"] for r in rows[task])
        assert int(table[task]["cut_off"]) == sum(r["cut_off"] for r in rows[task])
        assert float(table[task]["low"]) <= float(table[task]["accuracy"]) <= float(table[task]["high"])
    stored = json.loads((finished / "summary_bbh_tiny.json").read_text())
    assert [row["task"] for row in stored["tasks"]] == list(table)
    assert stored["settings"]["shots"] == 2


def test_accuracy_is_the_share_of_items_whose_target_the_model_says(config, folder, tmp_path):
    """Take what the model says as the target of every other item: half of them are right then."""
    out = evaluate(config(cot=False, output_dir=tmp_path / "first"), "bbh", quiet=True)
    assert out.rows[-1]["accuracy"] == 0
    other = make(tmp_path / "other")
    said = 0
    for task in THREE:
        rows, file = lines(tmp_path / f"first/{task}_tiny.jsonl"), other / f"bbh/{task}.json"
        data = json.loads(file.read_text())
        for number, row in enumerate(rows):
            if number % 2 and row["answer"]:
                data["examples"][number]["target"] = row["answer"]
                said += 1
        file.write_text(json.dumps(data))
    again = evaluate(config(cot=False, bbh_dir=other, output_dir=tmp_path / "second"), "bbh", quiet=True)
    assert said >= 4
    assert again.rows[-1]["accuracy"] == 100 * said / 12


def test_averages_are_over_tasks_over_the_papers_families_and_over_items():
    def items(right, n):
        return [{"correct": i < right, "lenient": i < right, "parsed": True, "cut_off": False, "too_long": False} for i in range(n)]

    families = {f"{family}_{size}_objects": items(right, 10) for family, right in (("logical_deduction", 3), ("tracking_shuffled_objects", 6)) for size in ("three", "five", "seven")}
    rows = {row["task"]: row for row in summary.table({**families, "snarks": items(4, 4)})}
    assert rows["macro"]["accuracy"] == pytest.approx(100 * (3 * 0.3 + 3 * 0.6 + 1) / 7)
    assert rows["macro_3"]["accuracy"] == pytest.approx(100 * (0.3 + 0.6 + 1) / 3)
    assert rows["micro"]["accuracy"] == pytest.approx(100 * 31 / 64)


# -- resume --------------------------------------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_at_the_item_where_it_stopped_and_ends_in_the_same_bytes(config, finished, monkeypatch, tmp_path):
    seen = []
    real = Progress.item

    def stop_at_six(self, *facts):
        real(self, *facts)
        seen.append(facts)
        if len(seen) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "item", stop_at_six)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config(), "bbh", quiet=True)
    kept = sum(len(lines(file)) for file in (tmp_path / "out").glob("*.jsonl"))
    assert kept == 6
    assert not list((tmp_path / "out").glob("summary*"))
    evaluate(config(), "bbh", quiet=True)
    assert len(seen) == 12
    assert content(tmp_path / "out") == content(finished)


def test_a_half_written_last_line_is_dropped_and_asked_again(config, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    whole = (out / "snarks_tiny.jsonl").read_bytes()
    (out / "snarks_tiny.jsonl").write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 20])
    evaluate(config(), "bbh", quiet=True)
    assert content(out) == content(finished)


def test_a_finished_evaluation_is_not_asked_again(config, finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "out")
    monkeypatch.setattr(Progress, "item", lambda *_: pytest.fail("an item was asked again"))
    assert len(evaluate(config(), "bbh", quiet=True).rows) == 5


def test_a_larger_number_of_examples_keeps_the_results_of_a_smaller_one(config, finished, tmp_path, capsys):
    evaluate(config(MAX_EXAMPLES=2), "bbh", quiet=True)
    evaluate(config(), "bbh")
    assert "resuming: 6 of 12 items" in capsys.readouterr().err
    assert content(tmp_path / "out") == content(finished)


def test_progress_shows_the_running_accuracy_of_a_task(config, capsys):
    evaluate(config(tasks=["navigate"]), "bbh")
    assert re.search(r"4 of 4, about 0 s left; navigate: 0 of 4 right \(0\.0%\)\n", capsys.readouterr().err)


def test_order_and_size_of_minibatches_change_no_answer(config, finished, tmp_path):
    for size in (1, 3):
        evaluate(config(batch_size=size, output_dir=tmp_path / str(size), tasks=THREE[::-1]), "bbh", quiet=True)
        for task in THREE:
            assert (tmp_path / f"{size}/{task}_tiny.jsonl").read_bytes() == (finished / f"{task}_tiny.jsonl").read_bytes()


# -- refusals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "says"), [({"shots": 1}, "shots was 2, is 1"), ({"cot": False}, "cot was True, is False"), ({"BBH_MAX_TOKEN_LENGTH": 9}, "max_new_tokens was 8, is 9")])
def test_results_of_another_config_are_refused_named_and_left_as_they_are(config, finished, tmp_path, change, says):
    out = shutil.copytree(finished, tmp_path / "out")
    with pytest.raises(RunConflict, match=f"settings_bbh_tiny.json.*{says}.*--out"):
        evaluate(config(**change), "bbh", quiet=True)
    assert content(out) == content(finished)


def test_a_result_file_of_another_run_is_refused_even_without_its_settings(config, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    (out / "settings_bbh_tiny.json").unlink()
    before = content(out)
    with pytest.raises(RunConflict, match=r"navigate_tiny.jsonl holds results of other settings"):
        evaluate(config(shots=1), "bbh", quiet=True)
    assert content(out) == before


def test_results_of_changed_data_are_refused(config, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "out")
    other = make(tmp_path / "other")
    (other / "bbh/snarks.json").write_text((other / "bbh/snarks.json").read_text().replace("on", "over"))
    with pytest.raises(RunConflict, match=r"snarks_tiny.jsonl, line 1: item snarks/0 was another question then"):
        evaluate(config(bbh_dir=other), "bbh", quiet=True)


def test_a_damaged_line_in_the_middle_is_named(config, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    parts = (out / "snarks_tiny.jsonl").read_bytes().split(b"\n")
    (out / "snarks_tiny.jsonl").write_bytes(b"\n".join([parts[0], parts[1][:50], *parts[2:]]))
    with pytest.raises(DataError, match=r"snarks_tiny.jsonl, line 2 is not a result"):
        evaluate(config(), "bbh", quiet=True)


def test_prompts_beyond_the_context_are_counted_as_wrong_and_one_is_named(config, tmp_path, capsys):
    long = make(tmp_path / "long")
    data = json.loads((long / "bbh/snarks.json").read_text())
    data["examples"][1]["input"] += " x" * 300
    (long / "bbh/snarks.json").write_text(json.dumps(data))
    done = evaluate(config(bbh_dir=long, tasks=["snarks"]), "bbh")
    row = done.rows[0]
    assert (row["n"], row["too_long"]) == (4, 1)
    assert re.search(r"1 prompts do not fit .*, the first is snarks/1 \(\d+ tokens\)", capsys.readouterr().err)
    stored = lines(tmp_path / "out/snarks_tiny.jsonl")[1]
    assert (stored["too_long"], stored["response"], stored["correct"]) == (True, "", False)
    assert "not asked" in (tmp_path / "out/snarks_tiny.txt").read_text()


def test_an_output_folder_that_cannot_be_written_is_named(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/out cannot be written"):
        evaluate(config(output_dir=tmp_path / "file/out"), "bbh", quiet=True)


def test_a_missing_model_leaves_no_folder(config, tmp_path):
    with pytest.raises(ConfigError, match=r"model folder .*nowhere does not exist"):
        evaluate(config(model_name=str(tmp_path / "nowhere")), "bbh", quiet=True)
    assert not (tmp_path / "out").exists()


# -- config --------------------------------------------------------------------------------------------------------------------


def test_the_old_keys_are_understood(tmp_path):
    old = {"model_name": "meta-llama/Meta-Llama-3-8B", "bbh_dir": "./data/bbh/", "flan_file": "./data/flan.tsv", "output_dir": "out", "BBH_MAX_TOKEN_LENGTH": 500, "FLAN_MAX_NEW_TOKENS": 50, "MAX_EXAMPLES": 10}
    (tmp_path / "old.json").write_text(json.dumps(old))
    config = load(tmp_path / "old.json")
    assert config.suffix == "meta-llama_Meta-Llama-3-8B"
    assert (config.BBH_MAX_TOKEN_LENGTH, config.MAX_EXAMPLES, config.cot, config.chat) == (500, 10, True, False)
    assert load(tmp_path / "old.json", ["MAX_EXAMPLES=null"]).MAX_EXAMPLES is None


@pytest.mark.parametrize("name", ["gemma", "llama", "smollm2"])
def test_shipped_configs_are_found_by_bare_name_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(Path(f"config_{name}.json")).model_name


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"model_name": "tiny", "MAX_EXAMPELS": 3}, "unknown key 'MAX_EXAMPELS'; did you mean 'MAX_EXAMPLES'"),
        ({"bbh_dir": "x"}, "the key 'model_name' is missing"),
        ({"model_name": "tiny", "MAX_EXAMPLES": 0}, "MAX_EXAMPLES = 0: input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_config_names_key_and_fix(tmp_path, raw, says):
    (tmp_path / "x.json").write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=says):
        load(tmp_path / "x.json")


def test_an_unknown_config_names_the_near_match(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"config config_gema\.json does not exist; did you mean 'config_gemma\.json'"):
        load(Path("config_gema.json"))


# -- rescoring and the command ---------------------------------------------------------------------------------------------------


def outlay(monkeypatch, capsys, *arguments):
    """-> (exit code, stdout, stderr)."""
    monkeypatch.setattr(sys, "argv", ["outlay", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code or 0, *capsys.readouterr()


def test_scoring_our_own_results_again_gives_the_same_table(finished, tmp_path):
    rows = summary.table(rescore(finished, cot=True))
    assert rows == json.loads((finished / "summary_bbh_tiny.json").read_text())["tasks"]


def test_rescoring_reads_predictions_packed_files_and_a_task_field(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write('{"prediction": "the answer is x.", "target": "x"}\n\n{"prediction": "x", "target": "x"}\n')
    (tmp_path / "b.jsonl").write_text('{"response": "the answer is y.", "target": "z", "task": "c"}\n')
    found = rescore(tmp_path, cot=True)
    assert {task: [r["correct"] for r in rows] for task, rows in found.items()} == {"a": [True, False], "c": [False]}
    assert [r["correct"] for r in rescore(tmp_path / "a.jsonl.gz", cot=False)["a"]] == [False, True]


@pytest.mark.parametrize(("text", "says"), [("{\n", "line 1: not readable"), ('{"target": "x"}\n', "line 1: the texts response"), ("[]\n", "line 1: a list"), ("", "holds no responses")])
def test_rescoring_names_file_and_line(tmp_path, text, says):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(DataError, match=says):
        rescore(tmp_path / "a.jsonl", cot=True)


def test_rescoring_two_models_at_once_is_refused(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "both")
    (out / "snarks_other.jsonl").write_text((out / "snarks_tiny.jsonl").read_text().replace('"run": "', '"run": "0'))
    with pytest.raises(DataError, match="holds results of 2 evaluations"):
        rescore(out, cot=True)


def test_the_command_reproduces_the_published_accuracies(outlay_data, tmp_path, monkeypatch, capsys):
    for mode, flag in (("cot", "--cot"), ("answer_only", "--answer-only")):
        code, out, _ = outlay(monkeypatch, capsys, "eval", "--rescore", outlay_data / "replays" / mode, "--mode", "bbh", flag, "--out", tmp_path)
        assert (code, out.count("\n")) == (0, 1 + 19 + 3 + 2)
        with open(tmp_path / f"summary_bbh_{mode}.csv", newline="") as ours, open(outlay_data / "replays/published.csv", newline="") as theirs:
            published = {row["task"]: float(row["accuracy"]) for row in csv.DictReader(theirs) if row["mode"] == mode}
            got = {row["task"]: float(row["accuracy"]) for row in csv.DictReader(ours) if row["task"] in published}
        assert got == pytest.approx(published, abs=1e-9)


def test_the_old_script_is_the_same_command(finished, tmp_path):
    told = subprocess.run([sys.executable, ROOT / "eval.py", "--rescore", finished, "--data", "bbh"], capture_output=True, text=True, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("task ")
    assert "navigate" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--mode", "bhb", "--config", "x.json"], "unknown --mode 'bhb'; did you mean 'bbh'"),
        ([], "eval needs --config"),
        (["--config", "nowhere.json"], "config nowhere.json does not exist"),
        (["--rescore", "nowhere.jsonl"], "nowhere.jsonl is no JSONL file"),
        (["--rescore", ".", "--mode", "mmlu"], "mode mmlu compares likelihoods"),
        (["--backend", "outlya", "--config", "x.json"], "unknown --backend 'outlya'; did you mean 'outlay'"),
    ],
)
def test_bad_input_is_one_line(monkeypatch, capsys, tmp_path, arguments, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = outlay(monkeypatch, capsys, "eval", *arguments)
    assert (code in (1, 2), out) == (True, "")
    assert re.fullmatch(r"error: .*\n", err), err
    assert says in err
    assert list(tmp_path.iterdir()) == []


# -- MMLU, FLAN, studies -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def subjects(tmp_path):
    """Two questions of one subject, one worked example."""
    for split, rows in (("dev", [("Up?", "a", "b", "c", "d", 2)]), ("test", [("Down?", "e", "ff ff ff", "g", "hh", 1), ("Left?", "i", "j", "k", "l", 0)])):
        (tmp_path / split).mkdir()
        with open(tmp_path / f"{split}/anatomy_{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("question", "choice0", "choice1", "choice2", "choice3", "answer"), *rows])
    return tmp_path


@pytest.mark.parametrize("style", ["letter", "cloze"])
def test_mmlu_takes_the_likeliest_choice_per_character_in_cloze(config, subjects, style, tmp_path):
    done = evaluate(config(mmlu_dir=subjects, tasks=["anatomy"], shots=1, format=style), "mmlu", quiet=True)
    texts = [["e", "ff ff ff", "g", "hh"], ["i", "j", "k", "l"]]
    rows = lines(tmp_path / "out/anatomy_tiny.jsonl")
    for row, choices, target in zip(rows, texts, "BA", strict=True):
        assert len(row["logprobs"]) == 4
        assert len(set(row["logprobs"])) == 4
        scores = [value / (len(text) if style == "cloze" else 1) for value, text in zip(row["logprobs"], choices, strict=True)]
        assert row["answer"] == "ABCD"[int(np.argmax(scores))]
        assert row["correct"] == row["lenient"] == (row["answer"] == target)
        assert row["parsed"]
    assert done.rows[0]["accuracy"] == 100 * np.mean([row["correct"] for row in rows])


def test_mmlu_says_why_it_took_a_format(config, subjects, capsys):
    evaluate(config(mmlu_dir=subjects, tasks=["anatomy"], shots=1), "mmlu")
    assert "cloze format, because the model has" in capsys.readouterr().err


def test_flan_questions_are_answered_and_scored(config, tmp_path):
    (tmp_path / "creak_train.tsv").write_text("".join(f"Is {n} odd?\t{'yes' if n % 2 else 'no'}\tHm.\n" for n in range(6)))
    done = evaluate(config(flan_file=tmp_path / "creak_train.tsv", tasks=[], shots=2, FLAN_MAX_NEW_TOKENS=6), "flan", quiet=True)
    assert [(row["task"], row["n"]) for row in done.rows] == [("creak", 4), ("macro", 4), ("micro", 4)]
    assert {row["target"] for row in lines(tmp_path / "out/creak_tiny.jsonl")} == {"yes", "no"}


def test_in_a_study_bbh_gives_a_row_an_item_and_is_stored_whole(folder, tmp_path):
    part = registry.build("evaluator", {"use": "bbh", "folder": str(folder), "tasks": ["snarks", "navigate"], "max_items": 3, "max_new_tokens": 4, "shots": 1}, benchmark="mine")
    result = part(Model("tiny"), seed=0)
    store = Store(tmp_path)
    store.write("e.parquet", result)
    again = store.read("e.parquet", Evaluation)
    assert (again.benchmark, again.items) == ("mine", part(Model("tiny"), seed=5).items)
    assert list(again.columns["group"]) == ["navigate"] * 3 + ["snarks"] * 3
    assert {"id", "correct", "lenient", "parsed", "cut_off", "too_long", "response"} <= set(again.columns)
    assert result.cost.generated_tokens > 0
    assert again.columns["correct"].dtype == bool


def test_in_a_study_mmlu_gives_a_row_an_item(subjects):
    result = registry.build("evaluator", {"use": "mmlu", "folder": str(subjects), "tasks": ["anatomy"], "shots": 1}, benchmark="mmlu")(Model("tiny"), seed=0)
    assert list(result.columns["id"]) == ["anatomy/0", "anatomy/1"]
    assert result.columns["parsed"].all()


def test_a_studys_config_may_leave_out_the_part_whose_name_is_the_benchmarks(toy_raw, folder, subjects):
    toy_raw["evaluators"] = {"bbh": {"folder": str(folder), "tasks": ["snarks"], "max_items": 2}, "mmlu": {"folder": str(subjects)}, "again": {"use": "bbh", "folder": str(folder)}}
    config = validate(toy_raw)
    check(config)
    assert {name: spec["use"] for name, spec in config.evaluators.items()} == {"bbh": "bbh", "mmlu": "mmlu", "again": "bbh"}


@pytest.mark.parametrize(("change", "says"), [({"tasks": ["snark"]}, "did you mean 'snarks'"), ({"folder": "/nowhere"}, "does not exist"), ({"max_items": 0}, "'max_items' = 0"), ({"shot": 1}, "did you mean 'shots'")])
def test_a_study_with_a_wrong_benchmark_is_refused_before_it_runs(toy_raw, folder, change, says):
    toy_raw["evaluators"] = {"bbh": {"folder": str(folder)} | change}
    with pytest.raises(ConfigError, match=says):
        check(validate(toy_raw))
