"""The command line: exit codes, and one line for whatever the user can mend."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from outlay import cli, registry
from outlay.store import Store


@pytest.fixture
def outlay(monkeypatch, capsys, tmp_path):
    """outlay("study", ...) -> (exit code, stdout, stderr), in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def go(*arguments):
        monkeypatch.setattr(sys, "argv", ["outlay", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return left.value.code or 0, said.out, said.err

    return go


@pytest.fixture
def config(toy_raw, tmp_path):
    """config(key=value) -> the path of a config file."""

    def write(**changes):
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(toy_raw | changes))
        return path

    return write


def refuses(result, code, says):
    """That exit code, nothing on stdout, and one line on stderr that says so."""
    left, out, err = result
    assert (left, out) == (code, ""), err
    assert re.fullmatch(r"error: .*\n", err), err
    assert re.search(says, err), err


# -- help ------------------------------------------------------------------------------------------------------------------


def test_help_of_the_program_shows_examples(outlay):
    code, out, _ = outlay("--help")
    assert code == 0
    assert "Examples" in out
    assert "outlay study configs/quickstart.yaml" in out


@pytest.mark.parametrize("command", sorted(c.name or c.callback.__name__ for c in cli.app.registered_commands))
def test_help_of_every_command_shows_an_example(outlay, command):
    code, out, _ = outlay(command, "--help")
    assert code == 0
    assert f"Example: outlay {command} " in " ".join(out.split())


def test_no_arguments_show_the_help(outlay):
    code, out, err = outlay()
    assert code == 2
    assert "Examples" in out + err


@pytest.mark.parametrize("arguments", [("studdy",), ("study",), ("study", "x.yaml", "--nope"), ("list",)])
def test_wrong_usage_exits_with_2_and_no_traceback(outlay, arguments):
    code, _, err = outlay(*arguments)
    assert code == 2
    assert "Usage" in err
    assert "Traceback" not in err


# -- list, validate --------------------------------------------------------------------------------------------------------


def test_list_strategies_names_signals_options_and_sources(outlay):
    code, out, err = outlay("list", "strategies")
    assert (code, err) == (0, "")
    assert "random: Uniformly at random" in out
    assert re.search(r"mean_entropy: .*; needs mean_entropy; nested", out)
    assert "    kernel = 'cosine'" in out
    assert "source: Bhatt et al. 2024" in out


@pytest.mark.parametrize("kind", sorted(cli.KINDS))
def test_every_kind_of_part_can_be_listed(outlay, kind):
    code, out, _ = outlay("list", kind)
    assert code == 0
    assert re.search(r"^\w+: \w.*", out)
    assert "\n    journal" not in out  # what the program fills in is not an option


def test_an_unknown_kind_gets_the_near_match(outlay):
    refuses(outlay("list", "stratgies"), 2, "cannot list 'stratgies'; did you mean 'strategies'")


def test_validate_counts_cells_and_runs_and_says_what_collapses(outlay, config):
    code, out, err = outlay("validate", config(strategies=["random"], starts=["cold"]), "seeds=5")
    assert (code, err) == (0, "")
    assert "is valid: 10 cells, 5 campaigns to run" in out
    assert "random: run at m = 1 only from a cold start" in out


def test_validate_writes_nothing(outlay, config, tmp_path):
    outlay("validate", config())
    assert os.listdir(tmp_path) == ["study.yaml"]


@pytest.mark.parametrize("path", sorted((Path(__file__).parent.parent / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_config_of_the_repository_is_valid(outlay, path, monkeypatch):
    monkeypatch.setenv("OUTLAY_DATA", os.environ.get("OUTLAY_DATA", "data"))
    code, out, err = outlay("validate", path)
    assert (code, err) == (0, "")
    assert "is valid" in out


def test_the_pools_and_tests_of_the_shipped_configs_are_as_large_as_they_say():
    sources = set()
    for path in (Path(__file__).parent.parent / "configs").glob("*.yaml"):
        raw = yaml.safe_load(path.read_text())
        sources |= {json.dumps(spec, sort_keys=True) for spec in (raw["pool"], *(e.get("source") for e in raw["evaluators"].values())) if spec and spec["use"] == "skills"}
    assert len(sources) > 5
    for source in sources:
        asked = json.loads(source)
        assert registry.build("pool", asked)().num_rows == asked["size"]


# -- mistakes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"bugdets": [8]}, 2, "unknown key 'bugdets'; did you mean 'budgets'"),
        ({"budgets": [91]}, 2, "budget 91 is above the 90 prompts"),
        ({"rounds": [9]}, 2, "9 rounds cannot share a budget of 8 annotations; use at most 8 rounds"),
        ({"strategies": ["mean_entropie"]}, 2, "did you mean 'mean_entropy'"),
        ({"pool": {"use": "file", "path": "nowhere.jsonl"}}, 1, r"pool file nowhere\.jsonl does not exist"),
        ({"trainer": {"use": "toy", "epochs": "many"}}, 2, "trainer 'toy', option 'epochs' = 'many'"),
    ],
)
def test_a_mistake_in_a_config_is_one_line(outlay, config, change, code, says):
    refuses(outlay("study", config(**change), "--quiet"), code, says)


GOOD = [json.dumps({"prompt": f"carry amber loba {w}", "response": "north"}) for w in ("raba", "suba", "teba", "voba", "miba", "loden", "raden", "suden", "teden", "voden")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"prompt": "a" "response"}', r"pool\.jsonl, line 11: not JSON"),
        ('{"prompt": "a", "respnse": "north"}', r"pool\.jsonl, line 11: no field 'response' \(found: prompt, respnse\); did you mean 'respnse'"),
        (GOOD[3], "rows 4 and 11 have the same id"),
        ('{"prompt": " ", "response": "north"}', "the prompt of row 11 .* is empty"),
    ],
)
def test_a_bad_row_of_the_pool_is_one_line(outlay, config, tmp_path, line, says):
    (tmp_path / "pool.jsonl").write_text("\n".join([*GOOD, line]) + "\n")
    refuses(outlay("study", config(pool={"use": "file", "path": "pool.jsonl"}, pool_per_seed=None), "-q"), 1, says)
    assert not (tmp_path / "runs/small/study.json").exists()


@pytest.mark.parametrize(("argument", "says"), [("nowhere.yaml", "config nowhere.yaml does not exist"), (".", "does not exist")])
def test_a_config_that_is_not_there_is_one_line(outlay, argument, says):
    refuses(outlay("study", argument), 2, says)


def test_a_response_that_the_trainer_cannot_learn_is_one_line(outlay, config, tmp_path):
    (tmp_path / "pool.jsonl").write_text("\n".join(GOOD).replace("north", "up") + "\n")
    refuses(outlay("study", config(pool={"use": "file", "path": "pool.jsonl"}, pool_per_seed=None), "-q"), 1, "the response 'up' to prompt")


def test_a_model_folder_without_weights_is_one_line(outlay, config, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "llama"}')
    test = {"held_out": {"use": "heldout", "source": {"use": "skills", "split": "test", "size": 20}}}
    result = outlay("study", config(model=str(tmp_path / "model"), scorer="llm", trainer="sft", evaluators=test, pool={"use": "skills", "size": 120}), "-q")
    refuses(result, result[0], "model.*(safetensors|weights|tokenizer)")
    assert result[0] in (1, 2)


def test_a_run_directory_in_use_is_one_line_with_the_pid(outlay, config, tmp_path):
    with Store(tmp_path / "busy").lock(".lock"):
        refuses(outlay("study", config(), "--out", "busy", "-q"), 1, rf"\(pid {os.getpid()}\) is working in busy")


def test_another_study_in_the_run_directory_is_one_line(outlay, config, toy_run, tmp_path):
    shutil.copytree(toy_run, tmp_path / "run")
    refuses(outlay("study", config(trainer={"use": "toy", "epochs": 3}), "--out", "run", "-q"), 1, "run holds another study: trainer was")


def test_a_damaged_stage_is_one_line_that_names_the_file(outlay, config, toy_run, tmp_path):
    shutil.copytree(toy_run, tmp_path / "run")
    stage = next((tmp_path / "run/campaigns").glob("*/round-001/batch.json"))
    stage.write_bytes(stage.read_bytes()[:-20])
    refuses(outlay("report", "run"), 1, r"batch\.json is damaged .* delete it and run again")


# -- running ---------------------------------------------------------------------------------------------------------------


def test_report_on_an_unfinished_run_says_how_much_is_missing(outlay, toy_run, tmp_path):
    shutil.copytree(toy_run, tmp_path / "run")
    for path in (tmp_path / "run/campaigns").glob("*-m2-*/round-002/model.json"):
        path.unlink()
    refuses(outlay("report", "run"), 2, r"run is not finished: \d+ of \d+ stages are missing; run the same `outlay study` command again")


def test_report_on_another_folder_says_so(outlay, tmp_path):
    refuses(outlay("report", tmp_path), 2, "is not a run directory")


def test_a_study_runs_to_its_report_and_exits_with_0(outlay, config, tmp_path):
    code, out, err = outlay("study", config(), "strategies=[random]", "starts=[cold]", "rounds=[1]", "--quiet")
    assert (code, err) == (0, "")
    page = tmp_path / re.search(r"report: (\S+)", out)[1]
    assert page.is_file()
    assert (tmp_path / "runs/small/results.parquet").is_file()
    assert "random" in out


@pytest.mark.slow
def test_as_a_program_it_resumes_with_plain_lines_where_there_is_no_terminal(config, toy_run, tmp_path):
    """In a process of its own, through `python -m outlay`, with one stage lost."""
    root = shutil.copytree(toy_run, tmp_path / "run")
    next((root / "campaigns").glob("random-m2-*/round-002/model.json")).unlink()
    path = config(strategies=["random", "mean_entropy", "facility_location"], budgets=[8, 16])
    done = subprocess.run([sys.executable, "-m", "outlay", "study", str(path), "--out", str(root)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.match(r"resuming: (\d+) of (\d+) stages are there already\n", done.stderr)
    assert "\x1b" not in done.stdout + done.stderr
    assert (root / "results.parquet").read_bytes() == (toy_run / "results.parquet").read_bytes()


def test_as_a_program_it_prints_no_traceback(tmp_path):
    done = subprocess.run([sys.executable, "-m", "outlay", "study", "nowhere.yaml"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: config nowhere\.yaml does not exist.*\n", done.stderr)


# -- plan and caps ---------------------------------------------------------------------------------------------------------


def test_a_plan_is_printed_and_no_run_directory_is_made(outlay, config, tmp_path):
    code, out, err = outlay("plan", config(max_usd=1.0), "--quiet")
    assert (code, err) == (0, "")
    assert "a cap stops this study" in out and "days: unknown; set prices.days_per_round" in out and "could detect: unknown" in out
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_study_stopped_at_a_cap_leaves_with_exit_code_4_and_goes_on(outlay, config):
    code, _, err = outlay("study", config(max_flops=1), "--quiet")
    assert code == 4
    assert err.startswith("stopped at a cap: ") and err.count("\n") == 1 and "run the same command to go on" in err
    assert outlay("study", config(), "--quiet")[0] == 0


def test_a_pilot_that_is_no_run_is_one_line(outlay, config, tmp_path):
    code, _, err = outlay("plan", config(), "--no-measure", "--pilot", tmp_path)
    assert code == 2 and err.count("\n") == 1 and "results.parquet" in err
