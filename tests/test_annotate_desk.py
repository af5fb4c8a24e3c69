"""What the annotation page keeps, without a browser: nobody's text is lost, and no prompt is given to more people than asked for."""

import json

import pytest

from outlay.annotate import handoff
from outlay.annotate.desk import LEASE, Desk, Refused
from outlay.errors import DataError


def asked(root, count, *, number=1, kind="response", annotators=1):
    folder = handoff.folder(root, number)
    folder.mkdir(parents=True)
    drafts = ["one", "two"] if kind == "preference" else ["draft"]
    rows = [{"id": f"r{number}p{i}", "prompt": f"P{i}?", "group": "", "drafts": drafts, "round": number, "kind": kind, "why": {}, "annotators": annotators} for i in range(count)]
    (folder / "requests.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def key(desk, name, now=None):
    item = desk.state(name, now)["item"]
    return item and item["id"]


def test_a_link_is_used_up_and_a_session_outlives_the_server(tmp_path):
    token = Desk(tmp_path).link()
    session = Desk(tmp_path).enter(token, "Ann")
    assert Desk(tmp_path).who(session) == "Ann" and Desk(tmp_path).enter(token, "Eve") is None and Desk(tmp_path).who("") is None
    raw = (tmp_path / "annotate.sqlite").read_bytes()
    assert session.encode() not in raw and token.encode() not in raw  # who reads the file cannot come in with it


def test_an_autosave_that_arrives_late_does_not_replace_a_newer_one(tmp_path):
    asked(tmp_path, 1)
    desk = Desk(tmp_path)
    desk.save("Ann", 1, "r1p0", "newer", 2.0, edited=20)
    desk.save("Ann", 1, "r1p0", "older", 1.0, edited=10)
    item = Desk(tmp_path).state("Ann")["item"]
    assert (item["text"], item["seconds"], item["edited"]) == ("newer", 2.0, 20)
    with pytest.raises(DataError, match="'nobody' is not asked in round 1"):
        desk.save("Ann", 1, "nobody", "x", 0.0, 1)


def test_two_annotators_hold_different_prompts_until_one_walks_away(tmp_path):
    asked(tmp_path, 2)
    desk = Desk(tmp_path)
    assert [key(desk, name, 0.0) for name in ("Ann", "Ben", "Cy")] == ["r1p0", "r1p1", None]
    assert key(desk, "Ben", LEASE - 1) == "r1p1"  # seen again: held on
    assert key(desk, "Cy", LEASE + 1) == "r1p0"  # Ann has gone


def test_a_half_written_response_comes_first_again(tmp_path):
    asked(tmp_path, 3)
    desk = Desk(tmp_path)
    desk.save("Ann", 1, "r1p2", "half", 1.0, 1)
    assert key(desk, "Ann") == "r1p2"


def test_each_of_k_annotators_answers_a_prompt_once(tmp_path):
    folder = asked(tmp_path, 1, annotators=2)
    desk = Desk(tmp_path)
    for name in ("Ann", "Ben"):
        assert key(desk, name) == "r1p0"
        desk.submit(name, 1, "r1p0", "response", text=f"by {name}", seconds=4.0)
        assert key(desk, name) is None
    assert key(desk, "Cy") is None and [a.annotator for a in handoff.collected(folder)] == ["Ann", "Ben"]
    assert desk.state("Ann") == {"run": desk.identity(), "name": "Ann", "item": None, "done": 2, "total": 2, "mine": 1, "pace": 4.0, "undo": True}


def test_an_answer_that_comes_too_late_is_refused_and_its_text_kept(tmp_path):
    folder = asked(tmp_path, 1)
    desk = Desk(tmp_path)
    desk.submit("Ann", 1, "r1p0", "response", text="first")
    desk.submit("Ann", 1, "r1p0", "response", text="first")  # the reply was lost, and the page asks again
    with pytest.raises(Refused, match="more answers than the 1 asked for"):
        desk.submit("Ben", 1, "r1p0", "response", text="long work")
    assert [a.response for a in handoff.collected(folder)] == ["first"]
    desk.undo("Ann")
    desk.state("Ann", 0.0)
    assert desk.state("Ben", 10 * LEASE)["item"]["text"] == "long work"


def test_undo_goes_back_answer_by_answer_but_not_behind_what_the_campaign_took(tmp_path):
    asked(tmp_path, 1)
    second = asked(tmp_path, 2, number=2)
    desk = Desk(tmp_path)
    for number, name in ((1, "r1p0"), (2, "r2p0"), (2, "r2p1")):
        desk.submit("Ann", number, name, "response", text=f"to {name}")
    taken = tmp_path / "campaigns" / "c" / "round-001" / "batch.json"
    taken.parent.mkdir(parents=True)
    taken.write_text("{}")
    assert desk.undo("Ann") and (key(desk, "Ann"), desk.state("Ann")["item"]["text"]) == ("r2p1", "to r2p1")
    assert desk.undo("Ann") and handoff.collected(second) == []
    assert not desk.state("Ann")["undo"] and not desk.undo("Ann")


def test_drafts_change_sides_by_chance_and_the_choice_is_what_was_seen(tmp_path):
    folder = asked(tmp_path, 12, kind="preference")
    desk, seen = Desk(tmp_path), {}
    while item := desk.state("Ann")["item"]:
        assert desk.state("Ann")["item"]["drafts"] == item["drafts"]
        seen[item["id"]] = item["drafts"][0]
        desk.submit("Ann", 1, item["id"], "preference", side=0)
    assert {a.prompt_id: a.chosen for a in handoff.collected(folder)} == seen and set(seen.values()) == {"one", "two"}


def test_a_round_handed_over_later_appears(tmp_path):
    asked(tmp_path, 1)
    desk = Desk(tmp_path)
    desk.submit("Ann", 1, "r1p0", "skip", text="unclear")
    assert key(desk, "Ann") is None
    asked(tmp_path, 1, number=2)
    assert key(desk, "Ann") == "r2p0"
