"""Hugging Face data sets in local folders that `datasets` writes here; nothing asks the network."""

import json

import pytest

from outlay import pools, registry
from outlay.errors import ConfigError, DataError
from outlay.pools.hub import HubPool

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


def folder(path, rows, kind="parquet"):
    path.mkdir()
    data = datasets.Dataset.from_list(rows)
    if kind == "parquet":
        data.to_parquet(path / "train-00000-of-00001.parquet")
    elif kind == "jsonl":
        data.to_json(path / "train.jsonl")
    else:
        datasets.DatasetDict(train=data).save_to_disk(path)
    return str(path)


CHATS = [
    {"id": "t0", "dataset": "flan", "messages": chat(("user", " Two and two? "), ("assistant", "four"))},
    {"id": "t1", "dataset": "flan", "messages": chat(("system", "Be brief."), ("user", "Sky?"), ("assistant", "blue"), ("user", "Why?"), ("assistant", "light"))},
]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "disk"])
def test_the_first_exchange_of_a_messages_column(tmp_path, kind):
    name = folder(tmp_path / "data", CHATS, kind)
    table = HubPool(name=name, messages="messages", group="dataset", id="id")()
    rows = {row["id"]: row for row in table.to_pylist()}
    assert rows["t0"] == {"id": "t0", "text": "Two and two?", "group": "flan", "response": "four"}
    assert rows["t1"]["text"] == "Be brief.\n\nSky?" and rows["t1"]["response"] == "blue"


def test_prompt_and_response_columns_and_the_registry(tmp_path):
    name = folder(tmp_path / "data", [{"question": f"q{i}", "answer": i} for i in range(6)])
    pool = registry.build("pool", {"use": "hub", "name": name, "prompt": "question", "response": "answer", "size": 4})
    table = pools.check("hub", pool())
    assert table.column_names == ["id", "text", "group", "response"] and table.num_rows == 4
    assert all(row["text"] == f"q{row['response']}" for row in table.to_pylist())
    assert HubPool(name=name, prompt="question", response=None)().column("response").to_pylist() == [""] * 6


def test_the_flan_mixture_that_people_use_can_be_said():
    spec = {"use": "hub", "name": "ai2-adapt-dev/flan_v2_converted", "messages": "messages", "id": "id", "size": 1000, "side": "pool", "max_chars": 2000}
    assert registry.build("pool", spec).size == 1000


def test_size_draws_by_hashed_id_nested_and_not_from_the_head_of_the_file(tmp_path):
    rows = [{"prompt": f"p{i}", "response": "r"} for i in range(300)]
    here, there = folder(tmp_path / "a", rows), folder(tmp_path / "b", rows[::-1])
    small, large = (HubPool(name=here, size=size)().column("id").to_pylist() for size in (40, 90))
    assert large[:40] == small == HubPool(name=there, size=40)().column("id").to_pylist()
    numbers = [int(text[1:]) for text in HubPool(name=here, size=40)().column("text").to_pylist()]
    assert max(numbers) > 150


def test_sides_share_no_prompt_and_together_are_all(tmp_path):
    name = folder(tmp_path / "data", [{"prompt": f"p{i % 200}", "response": f"r{i}"} for i in range(300)])
    pool, test = HubPool(name=name, side="pool")(), HubPool(name=name, side="test")()
    pools.require_disjoint(pool, test, "t")
    assert pool.num_rows + test.num_rows == 200 and 20 < test.num_rows < 60
    kept = {row["text"]: row["response"] for row in HubPool(name=name)().to_pylist()}
    assert kept["p0"] == "r0"  # the first answer of a prompt that occurs twice


def test_errors_list_the_columns_and_the_splits(tmp_path):
    name = folder(tmp_path / "data", CHATS)
    with pytest.raises(ConfigError, match=r"no column 'prompt' \(found: id, dataset, messages\); set messages='messages'"):
        HubPool(name=name)()
    with pytest.raises(ConfigError, match=r"no column 'mesages'.*did you mean 'messages'"):
        HubPool(name=name, messages="mesages")()
    with pytest.raises(DataError, match=r"split dev.*cannot be loaded.*dev"):
        HubPool(name=name, split="dev")()
    with pytest.raises(ConfigError, match="no split 'dev'; known: train"):
        HubPool(name=folder(tmp_path / "disk", CHATS, "disk"), split="dev")()
    with pytest.raises(ConfigError, match=r"size 3 where .* has 2 usable prompts"):
        HubPool(name=name, messages="messages", size=3)()


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (chat(("user", "q"), ("user", "again")), "the first turns are user, user where user, assistant"),
        (chat(("assistant", "hello"), ("user", "q")), "the first turns are assistant, user"),
        (chat(("user", " "), ("assistant", "a")), "the prompt is empty"),
        (chat(("user", "q"), ("assistant", "")), "the answer is empty"),
        (chat(), "the first turns are none"),
    ],
)
def test_malformed_rows_are_counted_named_and_left_out_only_when_asked(tmp_path, row, says):
    name = folder(tmp_path / "data", [*CHATS, {"id": "bad", "dataset": "flan", "messages": row}])
    with pytest.raises(DataError, match=f"1 rows cannot be used, the first is row 3: .*{says}"):
        HubPool(name=name, messages="messages")()
    assert HubPool(name=name, messages="messages", skip_malformed=True)().num_rows == 2


def test_a_messages_column_that_is_no_chat(tmp_path):
    name = folder(tmp_path / "data", [{"messages": "just a text"}])
    with pytest.raises(DataError, match="a list of turns with role and content is expected, got 'just a text'"):
        HubPool(name=name, messages="messages")()


def test_without_a_network_the_message_names_what_is_local():
    with pytest.raises(DataError, match=r"allenai/tulu-3-sft-mixture cannot be reached.*--local-dir FOLDER.*flan_cot"):
        HubPool(name="allenai/tulu-3-sft-mixture", messages="messages")()


def test_a_gated_data_set_names_the_licence_page_and_the_login(monkeypatch):
    def gated(*_, **__):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub. Visit the page.")

    monkeypatch.setattr(datasets, "load_dataset", gated)
    with pytest.raises(DataError, match=r"https://huggingface.co/datasets/a/b, then log in with: hf auth login"):
        HubPool(name="a/b")()


def test_a_missing_folder_is_not_asked_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked the Hub"))
    for name in (str(tmp_path / "nowhere"), "./nowhere", "data/my/folder"):
        with pytest.raises(DataError, match=r"the folder .* does not exist"):
            HubPool(name=name)()


def test_a_missing_config_is_answered_with_those_there_are(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": name, "response": "r"}) + "\n")
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: one\n  data_files: a.jsonl\n- config_name: two\n  data_files: b.jsonl\n---\n")
    with pytest.raises(DataError, match=r"cannot be loaded: Config name is missing.*'one', 'two'"):
        HubPool(name=str(tmp_path))()
    assert HubPool(name=str(tmp_path), config="two")().column("text").to_pylist() == ["b"]


def test_an_empty_folder_and_a_broken_file(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/train.jsonl").write_text(json.dumps({"prompt": "a"}) + "\n{not json\n")
    for name in ("empty", "broken"):
        with pytest.raises(DataError, match="cannot be loaded"):
            HubPool(name=str(tmp_path / name))()


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install outlay\[hub\]"):
        HubPool(name="a/b")()
