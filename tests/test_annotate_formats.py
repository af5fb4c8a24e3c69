"""What goes out to an annotation tool comes back whole, under Outlay's id, whatever the tool does in between."""

import csv
import json
import re
import xml.etree.ElementTree as ET

import pytest

from outlay.annotate import formats
from outlay.annotate.plain import neutral, restored
from outlay.errors import ConfigError, DataError

from .annotator import answered, records

NASTY = 'a "quoted", comma\nline; ü\u2028\t| =1+1'


def request(key="p1", *, kind="response", drafts=("a draft",), prompt=NASTY, number=2):
    return {"id": key, "prompt": prompt, "group": "g", "drafts": list(drafts), "round": number, "kind": kind, "why": {"score": 0.5, "rank": 1, "represents": 3}, "annotators": 1}


def pair(key="p1"):
    return request(key, kind="preference", drafts=("=draft one", "draft\ntwo"))


@pytest.fixture(params=formats.FORMATS)
def tool(request):
    return request.param


@pytest.fixture
def file(tool, tmp_path):
    return tmp_path / f"export{formats.FORMATS[tool].ending}"


def test_a_response_comes_back_under_its_id_from_every_tool_and_the_format_is_detected(tool, file):
    formats.write([request("p1"), request("007", drafts=())], file, tool)
    answered(file, tool, [(row, said, "ann") for row, said in zip(records(file), [NASTY, "second best"], strict=True)][::-1])  # tools do not keep the order
    found = {a.id: a for a in formats.read(file)}
    assert {key: (a.kind, a.response, a.prompt, a.round, a.annotator) for key, a in found.items()} == {
        "p1": ("response", NASTY, NASTY, 2, "ann"),
        "007": ("response", "second best", NASTY, 2, "ann"),
    }


def test_a_preference_comes_back_as_the_two_texts_from_every_tool(tool, file):
    formats.write([pair("p1"), pair("p2")], file, tool)
    answered(file, tool, [(row, said, "ann") for row, said in zip(records(file), ["first", "second"], strict=True)])
    found = {a.id: (a.kind, a.chosen, a.rejected, a.prompt) for a in formats.read(file, tool)}
    assert found == {"p1": ("preference", "=draft one", "draft\ntwo", NASTY), "p2": ("preference", "draft\ntwo", "=draft one", NASTY)}


def test_a_draft_that_nobody_touched_is_not_an_answer(tool, file):
    formats.write([request("p1"), request("p2")], file, tool)
    assert formats.read(file, tool) == []


def test_an_annotator_named_at_import_stands_only_where_the_file_names_none(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"outlay_id": "p1", "completion": "x"}\n{"outlay_id": "p1", "completion": "y", "annotator": "ben"}\n')
    assert [a.annotator for a in formats.read(tmp_path / "a.jsonl", annotator="ann")] == ["ann", "ben"]


def test_label_studio_gets_its_config_and_a_prefilled_draft_that_fits_it(tmp_path):
    task, config = formats.write([request()], tmp_path / "tasks.json", "label-studio")
    tags = {tag.get("name"): tag.tag for tag in ET.parse(config).iter() if tag.get("name")}
    (row,) = json.loads(task.read_text())
    (result,) = row["predictions"][0]["result"]
    assert result["value"] == {"text": ["a draft"]} and tags[result["from_name"]] == "TextArea" and tags[result["to_name"]] == "Text"


@pytest.mark.parametrize("said", ["fine", ["fine"], {"text": ["fine"]}, [{"text": ["fine"]}]])
def test_label_studios_minimal_export_is_read_however_it_wraps_a_text(said, tmp_path):
    row = {"id": 99, "outlay_id": "p1", "outlay_round": 2, "prompt": NASTY, "group": "g", "response": said, "annotator": 1, "annotation_id": 5, "lead_time": 3.25}
    (tmp_path / "min.json").write_text(json.dumps([row]))
    (found,) = formats.read(tmp_path / "min.json")
    assert (found.id, found.response, found.annotator, found.seconds) == ("p1", "fine", "1", 3.25)


def test_what_an_annotator_refused_is_a_skip_in_the_tools_that_can_say_so(tmp_path):
    task = {"data": {"outlay_id": "p1"}, "annotations": [{"completed_by": 1, "was_cancelled": True, "result": [{"from_name": "reason", "value": {"text": ["unclear"]}}]}]}
    for name, row, reason in (
        ("ls.json", [task], "unclear"),
        ("prodigy.jsonl", {"outlay_id": "p1", "text": "t", "answer": "ignore"}, "ignore"),
        ("argilla.json", [{"id": "p1", "fields": {"prompt": "t"}, "responses": {"response": [{"value": "half", "user_id": "u", "status": "discarded"}]}}], "discarded"),
        ("rows.jsonl", {"outlay_id": "p1", "completion": None, "skip_reason": "unclear"}, "unclear"),
    ):
        (tmp_path / name).write_text(json.dumps(row) + "\n")
        assert [(a.id, a.kind, a.reason, a.response) for a in formats.read(tmp_path / name)] == [("p1", "skip", reason, "")]


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "'=1", "''=1", "'", "''", "'tis", "plain", "", "1 = 1"])
def test_a_cell_is_no_formula_and_is_restored_exactly(cell):
    assert not re.match(r"\s*[=+\-@＝＋－＠]|[\t\r\n]", neutral(cell))
    assert restored(neutral(cell)) == cell


def test_a_spreadsheet_sees_no_formula_in_any_cell(tmp_path):
    (path,) = formats.write([request("=id", prompt="=HYPERLINK()", drafts=["@cmd"])], tmp_path / "a.csv", "csv")
    with open(path, encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert {"'=id", "'=HYPERLINK()", "'@cmd"} <= set(cells) and not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_spreadsheet_may_save_with_another_separator(separator, tmp_path):
    (tmp_path / "a.csv").write_text(separator.join(["outlay_id", "response"]) + "\n" + separator.join(["p1", '"a, b"']) + "\n", encoding="utf-8-sig")
    assert [(a.id, a.response) for a in formats.read(tmp_path / "a.csv")] == [("p1", "a, b")]


@pytest.mark.parametrize(
    ("name", "raw", "says"),
    [
        ("a.csv", b"outlay_id,response\np1,\xff\n", "not UTF-8; save the file as UTF-8"),
        ("a.csv", "outlay_id,response\np1,x\n".encode("utf-16"), "not UTF-8"),
        ("a.jsonl", b'{"outlay_id": "p1", "completion": "\\ud800"}\n', "line 1: .*surrogate"),
        ("a.jsonl", b'{"completion": "x"}\n', "line 1: there is no field 'outlay_id'"),
        ("a.jsonl", b'{"outlay_id": "p1", "completion": "x", "seconds": -1}\n', "line 1: field 'seconds' is -1"),
        ("a.jsonl", b'{"outlay_id": "p1", "completion": "x", "outlay_round": "two"}\n', "'outlay_round' is 'two'"),
        ("a.jsonl", b'{"outlay_id": "p1", "completion": ' + b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", b'{"outlay_id": "p1", "choice": "third", "first": "a", "second": "b"}\n', "first or second is expected"),
        ("a.jsonl", b'{"some": 1, "thing": 2}\n', "format cannot be told .*label-studio"),
        ("a.json", b'[{"data": {"outlay_id": "p1"}, "annotations": [', "was it cut off"),
        ("a.json", b'[{"data": {"outlay_id": "p1"}, "annotations": [{"result": [{"from_name": "response", "value": {"text": ["a", "b"]}}]}]}]', "record 1: 2 texts where one response"),
        ("a.json", b"[]", "there is no record in it"),
        ("a.jsonl", b"", "there is no record in it"),
    ],
)
def test_a_malformed_file_is_named_with_what_to_do(name, raw, says, tmp_path):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError, match=says):
        formats.read(tmp_path / name)


def test_an_unknown_format_names_the_near_one_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'label-studio'"):
        formats.write([request()], tmp_path / "x.json", "labelstudio")
    assert not list(tmp_path.iterdir())
