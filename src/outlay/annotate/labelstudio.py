"""Label Studio: tasks with the draft as a prediction, the labelling config, and its JSON and JSON_MIN exports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..pools.files import as_text
from .record import ID, ROUND, SIDES, Answer, identity, one, part, preferred, seconds, text, whole

REASON = '  <TextArea name="reason" toName="prompt" maxSubmissions="1" rows="1" placeholder="To skip it: say why, then press Skip"/>\n'
RESPONSE = (
    '<View>\n  <Text name="prompt" value="$prompt"/>\n'
    '  <TextArea name="response" toName="prompt" editable="true" maxSubmissions="1" rows="10" placeholder="The response"/>\n' + REASON + "</View>\n"
)
PREFERENCE = (
    '<View>\n  <Text name="prompt" value="$prompt"/>\n  <View style="display: flex; gap: 1em">\n'
    '    <View style="flex: 1"><Header value="first"/><Text name="first" value="$first"/></View>\n'
    '    <View style="flex: 1"><Header value="second"/><Text name="second" value="$second"/></View>\n  </View>\n'
    '  <Choices name="choice" toName="prompt" choice="single">\n    <Choice value="first" hotkey="1"/>\n    <Choice value="second" hotkey="2"/>\n  </Choices>\n' + REASON + "</View>\n"
)
CONFIG = {"response": RESPONSE, "preference": PREFERENCE}


def task(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request as a task; a draft to edit is pre-filled."""
    data = {ID: request["id"], ROUND: request["round"], "prompt": request["prompt"], "group": request["group"]}
    if request["kind"] == "preference":
        return {"data": data | dict(zip(SIDES, request["drafts"], strict=True))}
    drafts = request["drafts"][:1]
    result = [{"from_name": "response", "to_name": "prompt", "type": "textarea", "value": {"text": drafts}}]
    return {"data": data, "predictions": [{"model_version": f"round {request['round']}", "result": result}] if drafts else []}


def answers(row: dict[str, Any]) -> list[Answer]:
    """The annotations of one task, of either export; none where nobody has answered."""
    if "data" not in row:
        return [_answer(row, row, row, text(row, "annotator") or "")]
    data, found = part(row, "data", dict), []
    for annotation in part(row, "annotations", list):
        if not isinstance(annotation, dict):
            raise ValueError("an annotation is not an object")
        said: dict[str, list] = {}
        for region in part(annotation, "result", list):
            if not isinstance(region, dict) or not isinstance(region.get("from_name"), str):
                raise ValueError("a result of an annotation has no from_name")
            said.setdefault(region["from_name"], []).append(region.get("value"))
        found.append(_answer(data, said, annotation, _person(annotation)))
    return found


def _answer(data: dict[str, Any], said: dict[str, Any], about: dict[str, Any], annotator: str) -> Answer:
    common = {"prompt": text(data, "prompt"), "annotator": annotator, "seconds": seconds(about, "lead_time"), "round": whole(data, ROUND), "at": text(about, "created_at") or ""}
    key = identity(data)
    if about.get("was_cancelled"):
        return Answer(key, kind="skip", reason=one(_texts(said.get("reason")), "reason"), **common)
    if SIDES[0] in data:
        return Answer(key, **preferred(one(_texts(said.get("choice")), "choice"), data), **common)
    return Answer(key, response=one(_texts(said.get("response")), "response"), **common)


def _texts(value: Any) -> list[str]:
    """The texts in a value, which the exports wrap in different ways."""
    if value is None:
        return []
    if isinstance(value, list):
        return [found for item in value for found in _texts(item)]
    if isinstance(value, dict):
        return _texts(value.get("text", value.get("choices")))
    return [as_text(value, "value")]


def _person(annotation: dict[str, Any]) -> str:
    who = annotation.get("completed_by")
    return text(who, "id", "email") or "" if isinstance(who, dict) else text(annotation, "completed_by") or ""
