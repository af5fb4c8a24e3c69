"""Argilla's records, Prodigy's and doccano's JSONL."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from .record import ID, ROUND, SIDES, Answer, identity, one, part, preferred, seconds, text, whole


def argilla_record(request: Mapping[str, Any]) -> dict[str, Any]:
    """As `rg.Record.from_dict` reads it: fields prompt (first, second), a suggestion for the question `response`, metadata."""
    record = {"id": request["id"], "fields": {"prompt": request["prompt"]}, "metadata": {ID: request["id"], ROUND: request["round"]}, "suggestions": {}, "responses": {}, "vectors": {}}
    if request["kind"] == "preference":
        record["fields"] |= zip(SIDES, request["drafts"], strict=True)
    elif request["drafts"]:
        record["suggestions"] = {"response": {"value": request["drafts"][0], "score": None, "agent": f"round {request['round']}"}}
    return record


def argilla_answers(row: dict[str, Any]) -> list[Answer]:
    """One answer for each user who responded; drafts of the tool are left out, discarded records are skips."""
    fields, about = part(row, "fields", dict), part(row, "metadata", dict)
    said: dict[str, dict[str, Any]] = {}
    for question, replies in part(row, "responses", dict).items():
        for reply in replies if isinstance(replies, list) else [None]:
            if not isinstance(reply, dict):
                raise ValueError(f"the responses to '{question}' are not a list of objects")
            if reply.get("status") != "draft":
                said.setdefault(text(reply, "user_id") or "", {})[question] = None if reply.get("status") == "discarded" else reply.get("value")
    found = []
    for user, values in said.items():
        common = {"prompt": text(fields, "prompt"), "annotator": user, "round": whole(about, ROUND)}
        key = identity({ID: text(about, ID) or text(row, "id")})
        if all(value is None for value in values.values()):
            found.append(Answer(key, kind="skip", reason="discarded", **common))
        elif SIDES[0] in fields:
            found.append(Answer(key, **preferred(text(values, "choice") or "", fields), **common))
        else:
            found.append(Answer(key, response=text(values, "response") or "", **common))
    return found


def prodigy_task(request: Mapping[str, Any]) -> dict[str, Any]:
    """For the blocks text and text_input (field_id response), or for the interface choice."""
    task = {ID: request["id"], ROUND: request["round"], "text": request["prompt"], "meta": {"round": request["round"]}}
    if request["kind"] == "preference":
        return task | {"options": [{"id": side, "text": draft} for side, draft in zip(SIDES, request["drafts"], strict=True)]}
    return task | {"response": "".join(request["drafts"][:1])}


def prodigy_answers(row: dict[str, Any]) -> list[Answer]:
    """Accepted answers; ignored and rejected tasks are skips; a task without a decision is not an answer."""
    decision = row.get("answer")
    if decision is None:
        return []
    if decision not in ("accept", "reject", "ignore"):
        raise ValueError("field 'answer' is none of accept, reject, ignore")
    stamp = seconds(row, "_timestamp")
    at = datetime.datetime.fromtimestamp(stamp, datetime.UTC).isoformat() if 0 < stamp < 1e11 else ""
    common = {"prompt": text(row, "text"), "annotator": text(row, "_annotator_id", "_session_id") or "", "round": whole(row, ROUND), "at": at}
    key = identity(row)
    if decision != "accept":
        return [Answer(key, kind="skip", reason=decision, **common)]
    if "options" in row:
        sides = {text(o, "id"): o.get("text") for o in part(row, "options", list) if isinstance(o, dict)}
        return [Answer(key, **preferred(one(part(row, "accept", list), "choice"), sides), **common)]
    return [Answer(key, response=text(row, "response") or "", **common)]


def doccano_row(request: Mapping[str, Any]) -> dict[str, Any]:
    """For a sequence-to-sequence project, or, for preferences, one of text classification with the labels first and second."""
    row = {ID: request["id"], ROUND: request["round"], "text": request["prompt"], "label": []}
    if request["kind"] == "preference":
        first, second = request["drafts"]
        return row | {"text": f"{request['prompt']}\n\n[first]\n{first}\n\n[second]\n{second}", "prompt": request["prompt"], "first": first, "second": second}
    return row | {"draft": "".join(request["drafts"][:1])}  # not as a label: it could not be told from an answer


def doccano_answers(row: dict[str, Any]) -> list[Answer]:
    """The one label of a row; a row without labels is not an answer. Other columns come back as they went, or under `meta`."""
    labels = part(row, "label" if "label" in row else "labels", list)
    if not labels:
        return []
    row = {**part(row, "meta", dict), **row}
    said = one([text({"label": label}, "label") or "" for label in labels], "label")
    pair = SIDES[0] in row
    common = {"prompt": text(row, "prompt") if pair else text(row, "text", "data"), "annotator": text(row, "username", "annotator") or "", "round": whole(row, ROUND)}
    return [Answer(identity(row), **(preferred(said, row) if pair else {"response": said}), **common)]
