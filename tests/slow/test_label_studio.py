"""A real Label Studio on SQLite: tasks go there, annotations come back. It has an environment of its own (it pins what others pin, too):
python3 -m venv ls && ls/bin/pip install label-studio==1.23.0, then OUTLAY_LABEL_STUDIO=ls/bin/label-studio names it."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request

import pytest

from outlay.annotate import formats, handoff
from outlay.annotate.bridge import LabelStudio
from outlay.errors import ConfigError, DataError

SERVER = os.environ.get("OUTLAY_LABEL_STUDIO") or shutil.which("label-studio")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SERVER, reason="expected: Label Studio is not installed; OUTLAY_LABEL_STUDIO names its executable")]
TOKEN = "0123456789abcdef0123456789abcdef01234567"
PATIENCE = 900.0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("label-studio")
    command = [SERVER, "start", "--no-browser", "--port", str(port), "--internal-host", "127.0.0.1", "--data-dir", str(folder), "--username", "ann@example.org", "--password", "a-Password-7"]
    keep = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([*command, "--user-token", TOKEN, "--enable-legacy-api-token"], stdout=log, stderr=log, env=keep | {"DJANGO_DB": "sqlite", "LATEST_VERSION_CHECK": "false"})
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(address + "/health", timeout=5).close()
            break
        except OSError:
            assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()[-3000:]
            time.sleep(1)
    yield address
    process.kill()
    process.wait()


@pytest.fixture
def project(server, monkeypatch, request):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    return LabelStudio(url=server, title=request.node.name[:50], timeout=300.0)


def requests(kind, count=3):
    drafts = ["one ", "two\n=2"] if kind == "preference" else ["A draft,\nüber \u2028 it."]
    return [{"id": f"p{i}", "prompt": f"Prompt {i}:\n<b>why</b>?", "group": "g", "drafts": drafts, "round": 1, "kind": kind, "why": {}, "annotators": 1} for i in range(count)]


def annotate(project, *, accept=None, choose=None, skip=None):
    """As the annotator's browser does: the pre-filled draft accepted, a choice made, a task skipped."""
    number = project._project()["id"]
    for task in project._export(number):
        key = task["data"]["outlay_id"]
        if key == accept:
            full = project._call("GET", f"/api/tasks/{task['id']}")
            result, cancelled = full["predictions"][0]["result"], False
        elif key == choose:
            result, cancelled = [{"from_name": "choice", "to_name": "prompt", "type": "choices", "value": {"choices": ["second"]}}], False
        elif key == skip:
            result, cancelled = [{"from_name": "reason", "to_name": "prompt", "type": "textarea", "value": {"text": ["unclear"]}}], True
        else:
            continue
        project._call("POST", f"/api/tasks/{task['id']}/annotations/", {"result": result, "was_cancelled": cancelled, "lead_time": 7.5})


def test_drafts_go_out_and_come_back_as_answers_and_skips_with_their_time(project, tmp_path):
    asked = requests("response")
    assert project.push(asked) == 3 and project.push(asked) == 0  # again: nothing new
    annotate(project, accept="p1", skip="p2")
    found = {a.id: a for a in project.pull()}
    assert set(found) == {"p1", "p2"}
    assert (found["p1"].response, found["p1"].seconds, found["p1"].round, found["p2"].kind, found["p2"].reason) == (asked[1]["drafts"][0], 7.5, 1, "skip", "unclear")
    home = handoff.folder(tmp_path, 1)
    home.mkdir(parents=True)
    (home / "requests.jsonl").write_text("".join(json.dumps(r) + "\n" for r in asked))
    assert handoff.collect(home, project.pull()).ok and handoff.collect(home, project.pull()).repeated == 2


@pytest.mark.parametrize("export", ["JSON", "JSON_MIN"])
def test_its_export_files_are_read(export, project, tmp_path):
    asked = requests("preference")
    project.push(asked)
    annotate(project, choose="p1")
    raw = project._call("GET", f"/api/projects/{project._project()['id']}/export?exportType={export}")
    (tmp_path / "export.json").write_text(json.dumps(raw))
    (found,) = formats.read(tmp_path / "export.json")
    assert (found.id, found.kind, found.chosen, found.rejected, found.prompt) == ("p1", "preference", "two\n=2", "one ", asked[1]["prompt"])


def test_a_wrong_token_and_a_project_of_another_kind_are_named(project, monkeypatch):
    project.push(requests("response"))
    with pytest.raises(DataError, match="another labelling config; choose another title"):
        project.push(requests("preference"))
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "wrong")
    with pytest.raises(ConfigError, match=r"HTTP 401.*check the token"):
        project.pull()
