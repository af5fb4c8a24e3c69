"""`outlay select`: files in, files out, and one line for whatever does not fit."""

import csv
import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

import outlay
from outlay import cli, cli_select
from outlay.engine import LLMScorer
from outlay.errors import OutlayError


@pytest.fixture
def go(monkeypatch, capsys, tmp_path):
    """go("--k", 3, ...) -> (exit code, stdout, stderr) of `outlay select`, in a folder with 60 prompts and their embeddings."""
    monkeypatch.chdir(tmp_path)
    points = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float16)
    np.save("e.npy", points)
    rows = [{"prompt": f"What is {row}?", "name": f"q{row:02d}", "same": "q"} for row in range(60)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["outlay", "select", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return left.value.code or 0, said.out, said.err

    return run


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_the_file_holds_what_select_chooses_from_arrays(go, tmp_path):
    (tmp_path / "done.txt").write_text("q03\nq40\n")
    code, out, _ = go("pool.jsonl", "--embeddings", "e.npy", "--k", 7, "--out", "chosen.jsonl", "--id", "name", "--labeled", "done.txt", "--seed", 5)
    assert code == 0 and "chose 7 of 60 prompts (2 labeled already)" in out and "of the best or more" in out
    rows, found = lines(tmp_path / "chosen.jsonl"), outlay.select(np.load("e.npy"), 7, labeled=[3, 40], rng=5)
    assert [row["row"] for row in rows] == found.rows.tolist() and [row["rank"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["id"] for row in rows] == [f"q{row:02d}" for row in found.rows]
    assert rows[0]["prompt"] == f"What is {found.rows[0]}?" and [row["represents"] for row in rows] == found.represents.tolist()
    assert rows[0]["examples"] == [f"q{row:02d}" for row in found.examples()[0]]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_every_format_says_the_same(go, tmp_path, ending):
    go("pool.jsonl", "--embeddings", "e.npy", "--k", 5, "--out", "a.jsonl", "--strategy", "k_center")
    code, out, _ = go("pool.jsonl", "--embeddings", "e.npy", "--k", 5, "--out", f"a.{ending}", "--strategy", "k_center")
    assert code == 0 and "no choice of 5 comes below" in out
    if ending == "csv":
        with open(tmp_path / "a.csv", newline="") as file:
            rows = [{**row, "examples": [int(x) for x in row["examples"].split()]} for row in csv.DictReader(file)]
    else:
        rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    expected = lines(tmp_path / "a.jsonl")
    assert [(int(r["row"]), r["prompt"], r["examples"]) for r in rows] == [(r["row"], r["prompt"], r["examples"]) for r in expected]


def test_prompts_that_repeat_are_no_obstacle_without_ids(go, tmp_path):
    (tmp_path / "same.csv").write_text("question\n" + "again\n" * 60)
    code, _, _ = go("same.csv", "--text", "question", "--embeddings", "e.npy", "--k", 2, "--out", "a.jsonl")
    assert code == 0 and len(lines(tmp_path / "a.jsonl")) == 2


def test_a_model_gives_what_the_strategy_needs_and_its_embeddings_can_be_kept(go, tmp_path):
    code, _, _ = go("pool.jsonl", "--model", "tiny", "--k", 4, "--out", "a.jsonl", "--strategy", "uncertainty_weighted_facility_location", "--keep-embeddings", "kept.npy", "-q")
    assert code == 0 and len(lines(tmp_path / "a.jsonl")) == 4
    kept = np.load(tmp_path / "kept.npy")
    assert len(kept) == 60
    go("pool.jsonl", "--model", "tiny", "--k", 4, "--out", "b.jsonl", "-q")
    go("pool.jsonl", "--embeddings", "kept.npy", "--k", 4, "--out", "c.jsonl")
    assert (tmp_path / "b.jsonl").read_text() == (tmp_path / "c.jsonl").read_text()


def test_shards_that_the_model_read_before_a_kill_are_not_read_again(go, tmp_path, monkeypatch):
    calls, read = [], LLMScorer.__call__

    def dies(self, model, pool, needs, *, seed=0):
        if len(calls) == 2:
            raise OutlayError("killed")
        calls.append(len(pool))
        return read(self, model, pool, needs, seed=seed)

    monkeypatch.setattr(cli_select, "SHARD", 20)
    monkeypatch.setattr(LLMScorer, "__call__", dies)
    command = ["pool.jsonl", "--model", "tiny", "--k", 4, "--strategy", "k_center", "-q"]
    assert go(*command, "--out", "a.jsonl")[0] == 1
    calls.clear()
    assert go(*command, "--out", "a.jsonl")[0] == 0 and calls == [20]
    assert not (tmp_path / ".a.jsonl.shards").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    go(*command, "--out", "b.jsonl")
    assert lines(tmp_path / "a.jsonl") == lines(tmp_path / "b.jsonl")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--k", 61], 1, "60 of 60 are not labeled"),
        (["--k", 2, "--out", "a.txt"], 2, "unknown ending '.txt'"),
        (["--k", 2, "--model", "tiny"], 2, "either --embeddings E.npy or --model M"),
        (["--k", 2, "--executor", "ray"], 2, "--executor is for --model"),
        (["--k", 2, "--embeddings", "pool.jsonl"], 1, "not a .npy file"),
        (["--k", 2, "--embeddings", "none.npy"], 1, "no such file"),
        (["--k", 2, "--embeddings", "short.npy"], 1, "59 rows, pool.jsonl has 60 prompts"),
        (["--k", 2, "--embeddings", "whole.npy"], 1, "int64 of shape"),
        (["--k", 2, "--embeddings", "nan.npy"], 1, "row 17 has a value that is nan"),
        (["--k", 2, "--labeled", "names.txt"], 1, "'q01' is no row number"),
        (["--k", 2, "--labeled", "names.txt", "--id", "nam"], 1, "did you mean 'name'"),
        (["--k", 2, "--strategy", "k_centre"], 2, "did you mean 'k_center'"),
        (["--k", 2, "--strategy", "mean_entropy"], 2, "give --model M in the place of --embeddings"),
        (["--k", 2, "--keep-embeddings", "b.npy"], 2, "--keep-embeddings is for --model"),
        (["--k", 2, "--out", "pool.jsonl"], 2, "is the pool, which would be lost"),
        (["--k", 2, "--out", "labeled.csv", "--labeled", "labeled.csv"], 2, "is --labeled, which would be lost"),
        (["--k", 2, "--labeled", "power.txt"], 1, "'²' is no row number"),
        (["--k", 2, "--labeled", "latin.txt"], 1, "byte 0 is not UTF-8"),
        (["--k", 2, "--embeddings", "zip.npy"], 1, "not a .npy file"),
        (["--k", 2, "--embeddings", "brackets.npy"], 1, "not a .npy file"),
        (["--k", 2, "--id", "same"], 1, "rows 1 and 2 have the same id 'q'"),
    ],
)
def test_what_does_not_fit_is_one_line(go, tmp_path, arguments, code, says):
    points = np.load("e.npy")
    np.save("short.npy", points[:59])
    np.save("whole.npy", np.ones((60, 5), dtype=np.int64))
    bad = points.copy()
    bad[17, 3] = np.nan
    np.save("nan.npy", bad)
    (tmp_path / "names.txt").write_text("q01\n")
    (tmp_path / "labeled.csv").write_text("1\n")
    (tmp_path / "power.txt").write_text("²\n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes("é\n".encode("latin-1"))
    (tmp_path / "zip.npy").write_bytes(b"PK\x03\x04 is no archive")
    header = b"{'descr': '<f2', 'fortran_order': False, 'shape': ((((60, 5), }".ljust(117) + b"\n"
    (tmp_path / "brackets.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + points.tobytes())
    before = (tmp_path / "pool.jsonl").read_bytes()
    given = {"--embeddings": "e.npy", "--out": "a.jsonl"} | dict(zip(arguments[::2], arguments[1::2], strict=True))
    left, out, err = go("pool.jsonl", *(part for pair in given.items() for part in pair))
    assert (left, out) == (code, "") and err.count("\n") == 1 and says in err
    assert (tmp_path / "pool.jsonl").read_bytes() == before and not (tmp_path / "a.jsonl").exists()


def test_embeddings_are_not_kept_over_the_pool(go, tmp_path):
    before = (tmp_path / "pool.jsonl").read_bytes()
    code, _, err = go("pool.jsonl", "--model", "tiny", "--k", 2, "--out", "a.jsonl", "--keep-embeddings", "pool.jsonl")
    assert code == 2 and "--keep-embeddings pool.jsonl is the pool, which would be lost" in err and (tmp_path / "pool.jsonl").read_bytes() == before


def test_embeddings_of_zeros_choose_by_lottery_and_the_command_ends_well(go, tmp_path):
    np.save("zero.npy", np.zeros((60, 5), dtype=">f4"))
    code, out, _ = go("pool.jsonl", "--embeddings", "zero.npy", "--k", 5, "--out", "a.jsonl")
    assert code == 0 and len({row["row"] for row in lines(tmp_path / "a.jsonl")}) == 5 and "objective 0;" in out


def test_labeled_rows_are_read_from_files_of_other_programs_and_count_once(go, tmp_path):
    (tmp_path / "done.txt").write_bytes(b"\xef\xbb\xbf3\r\n3\r\n\r\n 40 \r\n")
    code, out, _ = go("pool.jsonl", "--embeddings", "e.npy", "--k", 58, "--out", "a.jsonl", "--labeled", "done.txt")
    assert code == 0 and "(2 labeled already)" in out and {row["row"] for row in lines(tmp_path / "a.jsonl")} == set(range(60)) - {3, 40}


def test_ids_with_spaces_can_be_named(go, tmp_path):
    (tmp_path / "spaced.jsonl").write_text("".join(json.dumps({"prompt": f"{n}?", "id": f" a\u2028{n}"}) + "\n" for n in range(60)))
    (tmp_path / "done.txt").write_text(" a\u20287\n", encoding="utf-8")
    code, _, _ = go("spaced.jsonl", "--embeddings", "e.npy", "--k", 59, "--out", "a.jsonl", "--labeled", "done.txt", "--id", "id")
    assert code == 0 and 7 not in {row["row"] for row in lines(tmp_path / "a.jsonl")}


def test_a_strategy_that_reads_words_needs_no_model_for_them(go, tmp_path):
    code, out, _ = go("pool.jsonl", "--embeddings", "e.npy", "--k", 4, "--out", "a.jsonl", "--strategy", "delfy")
    assert code == 0 and "delfy chose 4 of 60" in out
