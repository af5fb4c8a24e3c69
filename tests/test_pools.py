"""Pools from files: nothing is changed on the way in, and a bad row is named by file and line."""

import csv
import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from outlay import pools
from outlay.errors import ConfigError, DataError
from outlay.pools.files import FilePool, text_id
from outlay.pools.flan import FlanCot, read_tsv

ROWS = [
    {"prompt": 'Say "ü\u2028x"', "response": "a, b", "group": "g", "id": "1"},
    {"prompt": "C:\\new\\table", "response": "tab\there", "group": "h", "id": "2"},
    {"prompt": "two\nlines", "response": "'", "group": "g", "id": "3"},
]


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t")
            table.writeheader()
            table.writerows(rows)
    return path


@pytest.fixture
def jsonl(tmp_path):
    def make(text):
        (tmp_path / "p.jsonl").write_text(text, encoding="utf-8")
        return FilePool(path=tmp_path / "p.jsonl")

    return make


ENDINGS = ("jsonl", "csv", "tsv", "parquet")


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_come_in_as_they_are(tmp_path, ending):
    table = FilePool(path=write(tmp_path / f"p.{ending}", ROWS), group="group", id="id")()
    assert table.rename_columns({"text": "prompt"}).to_pylist() == [{k: row[k] for k in ("id", "prompt", "group", "response")} for row in ROWS]


@pytest.mark.parametrize("ending", ENDINGS)
def test_all_endings_make_the_same_pool(tmp_path, ending):
    found = pools.pool_of("p", FilePool(path=write(tmp_path / f"p.{ending}", ROWS))())
    assert found.fingerprint == pools.pool_of("q", FilePool(path=write(tmp_path / "q.jsonl", ROWS))()).fingerprint


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_missing_field_lists_what_was_found(tmp_path, ending):
    path = write(tmp_path / f"p.{ending}", ROWS)
    with pytest.raises(DataError, match=rf"p\.{ending}, line \d: no field 'promt' \(found: prompt, response, group, id\); did you mean 'prompt'"):
        FilePool(path=path, text="promt")()


def test_a_line_separator_inside_a_string_is_no_line_end(jsonl):
    table = jsonl('{"prompt": "a\u2028b\u2029c\x85d", "response": "r"}\n{"prompt": "second", "response": "r"}\n')()
    assert table.column("text").to_pylist() == ["a\u2028b\u2029c\x85d", "second"]


def test_line_numbers_count_the_lines_of_the_file_not_the_rows(jsonl):
    with pytest.raises(DataError, match=r"p\.jsonl, line 4: not JSON \(Expecting ',' delimiter at column 16\)"):
        jsonl('{"prompt": "a", "response": "r"}\n\n{"prompt": "x\u2028y", "response": "r"}\n{"prompt": "b" "response": "r"}\n')()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('["a"]', "line 1: a list where a JSON object is expected"),
        ('{"prompt": "a", "response": null}', "line 1: field 'response' is None, a text is expected"),
        ('{"prompt": ["a"], "response": "r"}', "line 1: field 'prompt' is .* a text is expected"),
        ('{"prompt": true, "response": "r"}', "line 1: field 'prompt' is True"),
        ('{"prompt": "a"}', r"line 1: no field 'response' \(found: prompt\)"),
        ('{"prompt": "\\ud83d", "response": "r"}', "line 1: field 'prompt' has half of a surrogate pair"),
    ],
)
def test_a_malformed_row_is_named(jsonl, line, says):
    with pytest.raises(DataError, match=rf"p\.jsonl, {says}"):
        jsonl(line + "\n")()


def test_numbers_are_texts(jsonl):
    assert jsonl('{"prompt": 7, "response": 0}')().to_pylist()[0] | {"id": ""} == {"id": "", "text": "7", "group": "", "response": "0"}


@pytest.mark.parametrize("line", ["only one", "a,b,c"])
def test_a_row_with_more_or_fewer_fields_than_the_header_is_named(tmp_path, line):
    (tmp_path / "p.csv").write_text(f'prompt,response\n"two\nlines",r\n{line}\n')
    with pytest.raises(DataError, match=r"p\.csv, line 4: the number of fields differs from the header \(2\)"):
        FilePool(path=tmp_path / "p.csv")()


def test_a_quote_that_is_never_closed_is_named(tmp_path):
    (tmp_path / "p.csv").write_text('prompt,response\na,r\n"open,r\nb,r\nc,r\n')
    with pytest.raises(DataError, match=r"p\.csv, line 3: .*check the quoting"):
        FilePool(path=tmp_path / "p.csv")()


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_the_mark_that_spreadsheets_put_first_is_not_part_of_a_name(tmp_path, ending):
    path = write(tmp_path / f"p.{ending}", ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert FilePool(path=path)().num_rows == 3


def test_the_nameless_index_column_of_pandas_does_no_harm(tmp_path):
    (tmp_path / "p.csv").write_text(",prompt,response\n0,a,r\n")
    assert FilePool(path=tmp_path / "p.csv")().column("text").to_pylist() == ["a"]


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(b'{"prompt": "\xff", "response": "r"}')
    with pytest.raises(DataError, match=r"p\.jsonl: byte 12 is not UTF-8"):
        FilePool(path=tmp_path / "p.jsonl")()


def test_a_damaged_page_of_a_parquet_file_is_one_line(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"prompt": [f"prompt {n} of many" for n in range(2000)]}), path, use_dictionary=False)
    raw = bytearray(path.read_bytes())
    raw[200:400] = bytes(255 - byte for byte in raw[200:400])
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"p\.parquet is not a readable Parquet file: \S"):
        FilePool(path=path, response=None)()


@pytest.mark.parametrize(("name", "says"), [("p.parquet", "not a readable Parquet file"), ("p.xls", r"unknown ending '\.xls'; use one of \.jsonl"), ("none.csv", "does not exist")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, says):
    if not name.startswith("none"):
        (tmp_path / name).write_text("PAR1?")
    with pytest.raises(DataError, match=says):
        FilePool(path=tmp_path / name)()


def test_a_pool_without_answers_may_be_asked_for(jsonl, tmp_path):
    jsonl('{"prompt": "a"}\n')
    assert FilePool(path=tmp_path / "p.jsonl", response=None)().column("response").to_pylist() == [""]


# -- what every pool is checked for ----------------------------------------------------------------------------------------


def table(*rows):
    return pa.table(dict(zip(("id", "text", "group", "response"), map(list, zip(*rows, strict=True)), strict=True)))


def test_equal_ids_are_named_with_both_rows():
    with pytest.raises(DataError, match="pool: rows 1 and 3 have the same id 'a'"):
        pools.check("pool", table(("a", "x", "", ""), ("b", "y", "", ""), ("a", "z", "", "")))


def test_a_prompt_that_occurs_twice_without_ids_is_refused(jsonl):
    with pytest.raises(DataError, match="rows 1 and 2 have the same id"):
        pools.check("pool", jsonl('{"prompt": "a", "response": "r"}\n' * 2)())


@pytest.mark.parametrize("text", ["", " \n\t", "\u00a0"])
def test_an_empty_prompt_is_named(text):
    with pytest.raises(DataError, match=r"pool: the prompt of row 2 \(id 'b'\) is empty"):
        pools.check("pool", table(("a", "x", "", ""), ("b", text, "", "")))


def test_a_pool_without_rows_is_refused(jsonl):
    with pytest.raises(DataError, match="there is no prompt in it"):
        pools.check("pool", jsonl("\n")())


def test_repeated_texts_under_different_ids_are_counted():
    assert pools.repeated(table(("a", "x", "", ""), ("b", "x", "", ""), ("c", "y", "", ""))) == 1


def test_a_test_prompt_that_is_in_the_pool_is_refused():
    with pytest.raises(DataError, match=r"evaluator 'bench': 1 of its 2 prompts are in the pool too, e.g. 'x'"):
        pools.require_disjoint(table(("a", "x", "", "")), table(("t", "x", "", ""), ("u", "y", "", "")), "bench")


def test_the_pool_has_no_answers_and_the_vault_no_prompts():
    whole = table(("a", "x", "g", "secret"))
    assert pools.pool_of("p", whole).table.column_names == ["id", "text", "group"]
    assert pools.vault_of(whole).column_names == ["id", "response"]


def test_the_fingerprint_knows_order_texts_and_groups():
    rows = [("a", "x", "g", "1"), ("b", "y", "h", "2")]
    base = pools.pool_of("p", table(*rows)).fingerprint
    assert pools.pool_of("other", table(*rows)).fingerprint == base
    for other in (rows[::-1], [rows[0], ("b", "y", "", "2")], [rows[0], ("b", "yh", "", "2")], rows[:1]):
        assert pools.pool_of("p", table(*other)).fingerprint != base


def test_rows_and_ids_are_each_others_inverse():
    pool = pools.pool_of("p", table(*((f"id{i}", f"text {i}", "", "") for i in range(9))))
    rows = [7, 0, 3]
    assert pool.rows_of(p.id for p in pool.at(rows)).tolist() == rows
    assert pool.take(rows).ids == ["id7", "id0", "id3"]
    with pytest.raises(DataError, match=r"'id99' is not in pool 'p' \(9 prompts\)"):
        pool.rows_of(["id99"])


# -- FLAN ------------------------------------------------------------------------------------------------------------------

TRAPS = {
    "quotes are kept": ('"Is it so?" he said\tyes\t"Because"', ('"Is it so?" he said', "yes", '"Because"')),
    "backslash-n is a line break": ("Q\\n- (A) x\\n\tyes\tfirst\\nsecond", ("Q\n- (A) x\n", "yes", "first\nsecond")),
    "other backslashes are kept": (r"\frac{1}{2} \times \t" + "\tno\tx", (r"\frac{1}{2} \times \t", "no", "x")),
    "U+2028 is no line end": ("one\u2028two\u0085three\t1\tr", ("one\u2028two\u0085three", "1", "r")),
    "blanks at the ends are kept": (" Q \t a\tr ", (" Q ", " a", "r ")),
}


@pytest.mark.parametrize("packed", [False, True], ids=["tsv", "tsv.gz"])
@pytest.mark.parametrize("trap", TRAPS)
def test_traps_of_the_flan_files(tmp_path, trap, packed):
    line, row = TRAPS[trap]
    raw = f"before\t1\tr\n{line}\nafter\t2\tr\n".encode()
    path = tmp_path / ("x_train.tsv.gz" if packed else "x_train.tsv")
    path.write_bytes(gzip.compress(raw) if packed else raw)
    assert read_tsv(path) == [("before", "1", "r"), row, ("after", "2", "r")]


def test_a_flan_row_with_a_field_too_many_is_named(tmp_path):
    (tmp_path / "x_train.tsv").write_text("a\tb\tc\na\tb\tc\td\n")
    with pytest.raises(DataError, match=r"x_train\.tsv, line 2: 4 tab-separated fields where 3"):
        read_tsv(tmp_path / "x_train.tsv")


@pytest.fixture
def flan(tmp_path):
    """Two small FLAN files of different sizes."""
    for task, rows in (("big", 300), ("small", 40)):
        (tmp_path / f"{task}_train.tsv").write_text("".join(f"{task} {i} \t{i % 2}\tbecause\n" for i in range(rows)) + f"{task} 0\t0\tbecause\n")
    return tmp_path


def test_pool_and_test_share_no_prompt_and_leave_none_out(flan):
    sides = [set(FlanCot(folder=flan, split=side)().column("text").to_pylist()) for side in ("pool", "test")]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 340
    assert 0.1 < len(sides[1]) / 340 < 0.3


def test_a_smaller_draw_is_part_of_a_larger_one(flan):
    draws = [FlanCot(folder=flan, size=n)().column("id").to_pylist() for n in (20, 60)]
    assert draws[1][:20] == draws[0]


def test_a_balanced_draw_takes_as_many_from_every_file(flan):
    groups = FlanCot(folder=flan, size=40, balanced=True)().column("group").to_pylist()
    assert (groups.count("big"), groups.count("small")) == (20, 20)


def test_the_rationale_may_be_the_response(flan):
    assert set(FlanCot(folder=flan, response="rationale")().column("response").to_pylist()) == {"because"}


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [({"size": 400}, ConfigError, "size 400 is more than the"), ({"tasks": ("bigg",)}, ConfigError, r"'bigg'\] is not in .*found: big, small"), ({"max_chars": 3, "size": 1}, ConfigError, "max_chars 3")],
)
def test_a_flan_pool_that_cannot_be_is_refused(flan, options, kind, says):
    with pytest.raises(kind, match=says):
        FlanCot(folder=flan, **options)()


def test_a_folder_without_flan_files_says_where_to_get_them(tmp_path):
    with pytest.raises(DataError, match="get flan/v2/cot_data of google-research/FLAN, or set OUTLAY_DATA"):
        FlanCot(folder=tmp_path)()


def test_all_rows_of_the_real_flan_files_are_read(outlay_data):
    folder = outlay_data / "flan_v2_cot"
    stated = dict(re.findall(r"^\| (\w+_train\.tsv) \| (\d+) \|", (folder / "README.md").read_text(), re.MULTILINE))
    found = {path.name.removesuffix(".gz"): read_tsv(path) for path in folder.glob("*_train.tsv*")}
    assert {name: len(rows) for name, rows in found.items()} == {name: int(rows) for name, rows in stated.items()}
    assert sum(map(len, found.values())) == 33_443
    assert sum(prompt.startswith('"') for prompt, _, _ in found["creak_train.tsv"]) >= 975  # what the default quoting of csv would strip
    assert not any("\\n" in field for rows in found.values() for row in rows for field in row)
    assert sum("\\" in prompt + rationale for prompt, _, rationale in found["aqua_train.tsv"]) == 20  # LaTeX
    assert any("\u2028" in field for row in found["gsm8k_train.tsv"] for field in row)


def test_pool_and_test_of_the_real_flan_files_share_no_prompt(outlay_data):
    sides = [FlanCot(folder=outlay_data / "flan_v2_cot", split=side, max_chars=10**6)() for side in ("pool", "test")]
    pools.require_disjoint(*sides, "flan")
    assert sides[0].num_rows + sides[1].num_rows == 33_442  # one row of strategyqa occurs twice
    assert not set(sides[0].column("id").to_pylist()) & set(sides[1].column("id").to_pylist())
    assert 0.19 < sides[1].num_rows / 33_442 < 0.21
    for side in sides:
        pools.check("flan", side)


def test_ids_made_from_texts_do_not_depend_on_the_process():
    assert text_id("a") == "ca978112ca1bbdca"
