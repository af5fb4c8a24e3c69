"""Random and malformed imports: whatever is in a file, all of it is kept or nothing, nothing that was there is lost, and the same file
again changes nothing."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlay.annotate import formats, handoff
from outlay.annotate.imports import bring_in
from outlay.errors import OutlayError

from .annotator import WORK, answered, records

TEXTS = st.one_of(st.sampled_from(["first", "second", "", " ", "=1+1", "'=1", "a\r\nb", "\ud800", "\u2028", "\0", "x" * 300, '"', "\t"]), st.text(max_size=20))
DAMAGE = st.one_of(
    st.none(), st.none(), st.none(),
    st.tuples(st.just("cut"), st.integers(0, 3000), st.just(b"")),
    st.tuples(st.just("put"), st.integers(0, 3000), st.sampled_from([b"\xff", b"\0", b'"', b"\n", b"[", b"{}", b"9", b",", b"'", b"null"])),
)  # fmt: skip


@st.composite
def imports(draw):
    """(kind, annotators a prompt, tool, is it named, prompts, answers as (prompt, what, who, what is wrong), damage to the bytes)."""
    prompts = draw(st.lists(st.sampled_from(["Why?", "=HYPERLINK()", "line\nline", "ü\u2028", '"', "'", "a,b;c\td"]), min_size=1, max_size=4))
    good = draw(st.booleans())  # half of the imports have nothing wrong with them but what chance brings
    wrong = st.none() if good else st.sampled_from([None, None, None, "id", "round", "prompt", "no id", "type"])
    said = st.sampled_from(["first", "second"]) if good else TEXTS
    answers = draw(st.lists(st.tuples(st.integers(0, len(prompts) - 1), said, st.sampled_from(["ann", "ben", "cy"]), wrong), max_size=6, unique_by=(lambda a: (a[0], a[2])) if good else None))
    damage = None if good else draw(DAMAGE)
    return draw(st.sampled_from(["response", "preference"])), draw(st.integers(1, 3)), draw(st.sampled_from(sorted(WORK))), draw(st.booleans()), prompts, answers, damage


def spoil(value, wrong):
    """The record with its id, round or prompt changed, wherever the tool keeps them."""
    if isinstance(value, dict):
        changes = {
            "id": {"outlay_id": "nobody"}, "round": {"outlay_round": 9}, "prompt": {"prompt": "Another?"}, "no id": {"outlay_id": None},
            "type": {"outlay_id": [1], "data": 1, "annotations": 2, "responses": "x", "label": 3, "options": 4, "accept": {}, "seconds": "soon"},
        }[wrong]  # fmt: skip
        return {name: changes[name] if name in changes else spoil(inner, wrong) for name, inner in value.items()}
    return value


def run_one(case, folder):
    kind, annotators, tool, named, prompts, answers, damage = case
    drafts = ["Draft one.", "=draft two"] if kind == "preference" else ["Draft."]
    asked = [{"id": f"p{i}", "prompt": p, "group": "", "drafts": drafts, "round": 1, "kind": kind, "why": {}, "annotators": annotators} for i, p in enumerate(prompts)]
    home = handoff.folder(folder, 1)
    home.mkdir(parents=True)
    (home / "requests.jsonl").write_text("".join(json.dumps(r) + "\n" for r in asked))
    file, there = folder / f"file{formats.FORMATS[tool].ending}", home / "annotations.jsonl"
    if answers:  # something is there already
        text = {"response": "old"} if kind == "response" else {"chosen": drafts[0], "rejected": drafts[1]}
        assert handoff.collect(home, [formats.Answer("p0", kind=kind, annotator="dan", **text)]).ok
    before = there.read_bytes() if there.exists() else None
    formats.write(asked, file, tool)
    rows = records(file)
    work = [(spoil(rows[i], wrong) if wrong else rows[i], said, who) for i, said, who, wrong in answers]
    try:
        answered(file, tool, work)
    except (AttributeError, TypeError, KeyError, UnicodeEncodeError):
        return "no such file"  # a tool could not have written it
    if damage:
        raw, (how, at, put) = file.read_bytes(), damage
        at %= len(raw) + 1
        file.write_bytes(raw[:at] if how == "cut" else raw[:at] + put + raw[at:])
    source = tool if named else None
    try:
        dry = bring_in(folder, [file], source, dry_run=True)
        assert (there.read_bytes() if there.exists() else None) == before
        first = bring_in(folder, [file], source)
    except OutlayError as told:
        assert (there.read_bytes() if there.exists() else None) == before and str(told) and "\n" not in str(told)
        return "unreadable"
    after = there.read_bytes() if there.exists() else None
    assert first.ok == dry.ok
    assert not [f for f in home.iterdir() if f.suffix == ".tmp"]
    if not first.ok:
        assert after == before
        return "refused"
    kept = [json.loads(line) for line in (after or b"").decode().split("\n")[:-1]]
    assert (after or b"").startswith(before or b"")
    given_now = formats.read(file, source)
    want = {(a.id, a.annotator) for a in given_now} | ({("p0", "dan")} if before else set())
    assert sorted((row["prompt_id"], row["annotator"]) for row in kept) == sorted(want)  # none lost, none twice, none invented
    for row in kept:
        assert row["kind"] == kind or row["kind"] == "skip"
        assert row["response"].strip() if row["kind"] == "response" else sorted([row["chosen"], row["rejected"]]) == sorted(drafts) or row["kind"] == "skip"
    assert all(sum(row["prompt_id"] == key for row in kept) <= annotators for key, _ in want)
    again = bring_in(folder, [file], source)
    assert again.ok and (there.read_bytes() if there.exists() else None) == after
    return "kept"


def check(case):
    with tempfile.TemporaryDirectory() as folder:
        return run_one(case, Path(folder))


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(imports())
def test_an_import_is_kept_whole_or_not_at_all_and_once(case):
    check(case)


@pytest.mark.slow
def test_ten_thousand_imports_lose_nothing_and_half_apply_nothing():
    seen = []

    @settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(imports())
    def many(case):
        seen.append(check(case))

    many()
    assert all(seen.count(end) > 100 for end in ("kept", "refused", "unreadable")), {end: seen.count(end) for end in set(seen)}
