"""A live Label Studio server: requests become tasks of a project, annotations come back as answers. Its REST API, by the standard library."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError, DataError
from ..oracles.chat import OPENER
from . import formats, labelstudio
from .record import ID, Answer

PART = 200  # tasks in one request


@dataclass(frozen=True, kw_only=True)
class LabelStudio:
    """A project on a Label Studio server, found by its title or made. The key (a personal access token, or a legacy one) is in the
    environment variable `key_env`; it is in no file."""

    url: str
    title: str
    key_env: str = "LABEL_STUDIO_API_KEY"
    timeout: float = 60.0
    _access: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def push(self, requests: Sequence[Mapping[str, Any]]) -> int:
        """Add the requests that the project lacks as tasks; -> how many. The same requests again add nothing. DataError if a project of
        that title asks something else, or the server refuses."""
        kinds = {request["kind"] for request in requests}
        if len(kinds) != 1:
            raise DataError(f"the requests are of {len(kinds)} kinds; a project holds requests of one kind")
        config = labelstudio.CONFIG[kinds.pop()]
        project = self._project()
        if project is None:
            project = self._call("POST", "/api/projects", {"title": self.title, "label_config": config})
        elif "".join(project["label_config"].split()) != "".join(config.split()):
            raise DataError(f"project '{self.title}' on {self.url} has another labelling config; choose another title")
        there = {(task["data"].get(ID), task["data"].get("outlay_round")) for task in self._export(project["id"])}
        fresh = [labelstudio.task(request) for request in requests if (request["id"], request["round"]) not in there]
        for at in range(0, len(fresh), PART):
            self._call("POST", f"/api/projects/{project['id']}/import", fresh[at : at + PART])
        return len(fresh)

    def pull(self) -> list[Answer]:
        """All answers in the project, skips among them; none while there is no such project."""
        project = self._project()
        if project is None:
            return []
        tasks = [task for task in self._export(project["id"]) if ID in task["data"]]
        return formats.answers(tasks, "label-studio", f"{self.url}, project '{self.title}'")

    def _project(self) -> dict[str, Any] | None:
        page = self._call("GET", "/api/projects?" + urllib.parse.urlencode({"title": self.title, "page_size": 1000}))
        return next((project for project in page["results"] if project["title"] == self.title), None)

    def _export(self, project: int) -> list[dict[str, Any]]:
        return self._call("GET", f"/api/projects/{project}/export?exportType=JSON&download_all_tasks=true")

    def _authorization(self) -> str:
        key = os.environ.get(self.key_env)
        if not key:
            raise ConfigError(f"the environment variable {self.key_env} is not set; put a token of {self.url} there (Account & Settings)")
        if key.count(".") != 2:
            return f"Token {key}"
        if not self._access:  # a personal access token buys a short-lived one
            self._access["access"] = self._send("POST", "/api/token/refresh", {"refresh": key}, None)["access"]
        return f"Bearer {self._access['access']}"

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        return self._send(method, path, body, self._authorization())

    def _send(self, method: str, path: str, body: Any, authorization: str | None) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": authorization} if authorization else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url.rstrip("/") + path, data=data, headers=headers, method=method)
        try:
            with OPENER.open(request, timeout=self.timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as bad:
            with bad:
                said = " ".join(bad.read(2000).decode(errors="replace").split())[:300]
            what = f"{self.url} refuses {method} {path.partition('?')[0]} (HTTP {bad.code}): {said}"
            raise (ConfigError(f"{what}; check the token in {self.key_env}") if bad.code in (401, 403) else DataError(what)) from None
        except (http.client.HTTPException, OSError, ValueError) as bad:
            raise DataError(f"{self.url} does not answer as Label Studio does ({type(bad).__name__}: {bad}); is it running, and is that its address?") from None
