"""Pool files as people save them: line ends, byte-order marks, chat turns, and errors that show the columns."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from outlay.errors import DataError
from outlay.pools.files import FilePool, first_exchange

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "blue"}, {"role": "user", "content": "Why?"}]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_line_ends_and_byte_order_marks_do_not_reach_the_texts(tmp_path, ending, end, mark):
    cut = {"csv": ",", "tsv": "\t"}.get(ending)
    lines = [f"prompt{cut}response", f"why?{cut}so"] if cut else [json.dumps({"prompt": "why?", "response": "so"})]
    path = tmp_path / f"pool.{ending}"
    path.write_bytes(mark + end.join([*lines, ""]).encode())
    assert FilePool(path=path)().select(["text", "response"]).to_pylist() == [{"text": "why?", "response": "so"}]


def test_line_breaks_inside_a_quoted_field_are_kept(tmp_path):
    path = tmp_path / "pool.csv"
    path.write_bytes(b'prompt,response\r\n"one\r\ntwo","a, b"\r\n')
    assert FilePool(path=path)().to_pylist()[0]["text"] == "one\r\ntwo"


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_chat_turns_are_read_as_one_exchange(tmp_path, ending):
    path = tmp_path / f"pool.{ending}"
    if ending == "jsonl":
        path.write_text(json.dumps({"messages": CHAT, "source": "s"}) + "\n")
    else:
        pq.write_table(pa.Table.from_pylist([{"messages": CHAT, "source": "s"}]), path)
    assert FilePool(path=path, messages="messages", group="source")().drop(["id"]).to_pylist() == [{"text": "Be brief.\n\nSky?", "group": "s", "response": "blue"}]
    with pytest.raises(DataError, match=r"line 1: no field 'prompt' \(found: messages, source\); set messages='messages'"):
        FilePool(path=path)()
    with pytest.raises(DataError, match=r"line 1: field 'messages' is \[\{.{50,60}\.\.\., a text is expected"):
        FilePool(path=path, text="messages", response=None)()
    with pytest.raises(DataError, match=r"line 1: no field 'mesages' .*did you mean 'messages'"):
        FilePool(path=path, messages="mesages")()


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        ([], "the first turns are none"),
        (CHAT[:1], "the first turns are system where"),
        (CHAT[2:], "the first turns are assistant, user"),
        (None, "got None"),
        ([{"from": "human", "value": "q"}], "role and content is expected"),
        ([CHAT[1], {"role": "assistant", "content": None}], "field 'content' is None"),
    ],
)
def test_what_is_no_exchange_is_said(turns, says):
    with pytest.raises(ValueError, match=says):
        first_exchange(turns)


def test_columns_of_the_same_name_are_refused(tmp_path):
    path = tmp_path / "pool.csv"
    path.write_text("prompt,response,prompt\na,b,c\n")
    with pytest.raises(DataError, match="a column occurs twice in prompt, response, prompt"):
        FilePool(path=path)()


def test_a_value_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "pool.parquet"
    pq.write_table(pa.table({"prompt": ["a", None], "response": [1, 2]}), path)
    with pytest.raises(DataError, match="line 2: field 'prompt' is None, a text is expected"):
        FilePool(path=path)()
