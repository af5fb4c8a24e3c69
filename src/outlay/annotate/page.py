"""`outlay annotate`: the local annotation page. FastAPI serves one plain HTML page; `desk.Desk` does the work."""

# No `from __future__ import annotations`: FastAPI reads the types of the functions inside `application`.

import contextlib
import ipaddress
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import ConfigError, OutlayError
from . import handoff
from .desk import LONGEST, Desk, Refused

LOCAL = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
FILES = {"": "text/html", "page.js": "text/javascript", "page.css": "text/css"}
Text = Annotated[str, Field(max_length=LONGEST)]
Seconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Entry(_Body):
    token: Annotated[str, Field(max_length=200)]
    name: Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$")]


class _Draft(_Body):
    round: int
    id: Text
    text: Text
    seconds: Seconds
    edited: Annotated[int, Field(ge=0, le=2**53)]


class _Submission(_Body):
    round: int
    id: Text
    kind: Literal["response", "preference", "skip"]
    text: Text = ""
    side: Literal[0, 1] = 0
    seconds: Seconds = 0.0


def application(desk: Desk, hosts: Sequence[str]) -> Any:
    """The FastAPI application of a desk. Only requests to an IP address or to one of `hosts` (names without port) are answered, so that a
    foreign site cannot reach it through a name of its own; every call but that of the page itself needs a session."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse, Response

    cookie = f"outlay-{desk.identity()}"  # cookies know no ports: another run on this machine has its own
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.middleware("http")
    async def guard(request: Request, call: Callable) -> Response:
        origin = request.headers.get("origin")
        if not _ours(request.url.hostname, hosts) or (origin and origin.split("://")[-1] != request.headers.get("host")):
            return JSONResponse({"error": "this address is not served"}, 403)
        answer = await call(request)
        answer.headers.update(HEADERS)
        return answer

    @app.exception_handler(OutlayError)
    def told(request: Request, bad: OutlayError) -> Response:
        return JSONResponse({"error": str(bad)}, 409 if isinstance(bad, Refused) else 500)

    class NoSession(Exception):
        pass

    @app.exception_handler(NoSession)
    def closed(request: Request, bad: NoSession) -> Response:
        return JSONResponse({"error": "this browser is not let in; open a new link"}, 401)

    def name_of(request: Request) -> str:
        name = desk.who(request.cookies.get(cookie, ""))
        if name is None:
            raise NoSession
        return name

    @app.get("/{file}")
    @app.get("/")
    def static(file: str = "") -> Response:
        if file not in FILES:
            return JSONResponse({"error": "there is no such page"}, 404)
        return Response(files("outlay").joinpath(f"annotate/{file or 'page.html'}").read_bytes(), media_type=f"{FILES[file]}; charset=utf-8")

    @app.post("/api/enter")
    def enter(body: _Entry) -> Response:
        session = desk.enter(body.token, " ".join(body.name.split()))
        if session is None:
            return JSONResponse({"error": "this link was used before, or never existed; each link lets one browser in, once: start `outlay annotate` again for a new one, or ask somebody who is in"}, 403)
        answer = JSONResponse({})
        answer.set_cookie(cookie, session, httponly=True, samesite="strict", max_age=90 * 24 * 3600)
        return answer

    @app.get("/api/state")
    def state(request: Request) -> Any:
        return desk.state(name_of(request))

    @app.put("/api/draft")
    def draft(request: Request, body: _Draft) -> Any:
        desk.save(name_of(request), body.round, body.id, body.text, body.seconds, body.edited)
        return {}

    @app.post("/api/submit")
    def submit(request: Request, body: _Submission) -> Any:
        name = name_of(request)
        desk.submit(name, body.round, body.id, body.kind, text=body.text, side=body.side, seconds=body.seconds)
        return desk.state(name)

    @app.post("/api/undo")
    def undo(request: Request) -> Any:
        name = name_of(request)
        if not desk.undo(name):
            raise Refused("there is nothing to take back: the campaign has taken your answers already")
        return desk.state(name)

    @app.post("/api/link")
    def link(request: Request) -> Any:
        name_of(request)
        return {"token": desk.link()}

    return app


def _ours(host: str | None, hosts: Sequence[str]) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host or "")
        return True
    return host in hosts


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. ConfigError if the address is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)  # from here on connections wait, instead of being refused
    except (OSError, OverflowError) as bad:
        listener.close()
        raise ConfigError(f"cannot listen on {host} port {port} ({bad}); choose another port, or 0 for any") from None
    return listener


def serve(run: Path, *, host: str = "127.0.0.1", port: int = 0, links: int = 1, say: Callable[[str], None] = print, stop: threading.Event | None = None) -> None:
    """Serve the annotation page of a run until interrupted, or until `stop` is set. `say` is told `links` addresses, each of which lets one
    browser in, once. `port` 0 takes the port of the last time, so that open pages go on after a restart, else any free one.

    Raises ConfigError without the extra `annotate` or where the address is taken, DataError where the run has no requests yet."""
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError:
        raise ConfigError("the annotation page needs FastAPI and uvicorn: pip install 'outlay[annotate]'") from None

    handoff.folders(run)
    desk = Desk(run)
    listener = None
    if not port and (last := desk.fact(f"port {host}")):
        with contextlib.suppress(ConfigError):
            listener = _listen(host, int(last))
    listener = listener or _listen(host, port)
    port = listener.getsockname()[1]
    desk.fact(f"port {host}", str(port))
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    shown = f"[{name}]" if ":" in name else name
    for _ in range(links):
        say(f"http://{shown}:{port}/#{desk.link()}")
    if host not in LOCAL:
        print(f"{host} is not this machine alone: what is written crosses the network unencrypted; a tunnel (ssh -L {port}:127.0.0.1:{port}) does not", file=sys.stderr)
    server = uvicorn.Server(uvicorn.Config(application(desk, [*LOCAL, name]), log_level="warning", timeout_graceful_shutdown=5))
    if stop is not None:

        def watch() -> None:
            stop.wait()
            server.should_exit = True

        threading.Thread(target=watch, daemon=True).start()
    with listener, contextlib.suppress(KeyboardInterrupt):  # uvicorn has closed down by then
        server.run(sockets=[listener])
