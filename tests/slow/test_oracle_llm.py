"""An LLM as annotator against a server that misbehaves: nothing is paid twice, no cap is passed, no answer is lost."""

import http.server
import json
import threading
import time

import pytest

from outlay.errors import CapReached, ConfigError, DataError
from outlay.oracles import llm
from outlay.registry import build
from outlay.types import Prompt, Request

pytestmark = pytest.mark.slow


def completion(text="fine", ending="stop", usage=(10, 5)):
    counts = dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True)) if usage else None
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": ending}], "usage": counts}


class Server(http.server.ThreadingHTTPServer):
    """Answers request number i with script[i], then with `completion` of the prompt in capitals. A step: (status, headers, body)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen, self.keys, self.times, self.open, self.most, self.guard = [], [], [], [], 0, 0, threading.Lock()
        self.hold = 0.0


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = body["messages"][-1]["content"]
        with server.guard:
            server.seen.append(asked)
            server.keys.append(self.headers["Authorization"])
            server.times.append(time.monotonic())
            server.open += 1
            server.most = max(server.most, server.open)
            step = server.script.pop(0) if server.script else None
        time.sleep(server.hold)
        with server.guard:
            server.open -= 1
        status, headers, said = step or (200, {}, completion(asked.upper()))
        raw = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(raw))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        size = 20 if headers.get("X-Drip") else len(raw) + 1
        for start in range(0, len(raw), size):
            self.wfile.write(raw[start : start + size])
            self.wfile.flush()
            time.sleep(0.04 if headers.get("X-Drip") else 0)


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def oracle(server, tmp_path, monkeypatch):
    """oracle(**options) -> the part, with waits a hundred times shorter."""
    monkeypatch.setenv("SOME_KEY", "s3cret")
    monkeypatch.setattr(llm._Purse, "_sleep", lambda self, seconds, sleep=llm._Purse._sleep: sleep(self, seconds / 100))
    address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    return lambda **options: build("oracle", {"use": "llm", "base_url": address, "model": "m", "key_env": "SOME_KEY", "timeout": 60, **options}, journal=tmp_path / "reveals.jsonl")


def ask(part, *names):
    return part([Request(Prompt(name, f"text {name}")) for name in names])


def lines(part, state):
    return [row for row in map(json.loads, part.journal.read_text().splitlines()) if row["state"] == state]


def test_answers_come_in_the_order_of_the_requests_several_at_once_with_the_key_from_the_environment(oracle, server):
    server.hold = 0.05
    part = oracle(workers=3, usd_in=1.0, usd_out=2.0)
    batch = ask(part, *"abcdef")
    assert [(a.prompt_id, a.response, a.kind, a.annotator) for a in batch.annotations] == [(n, f"TEXT {n.upper()}", "response", "m") for n in "abcdef"]
    assert batch.cost.labels == 6 and batch.cost.usd == pytest.approx(6 * (10 * 1.0 + 5 * 2.0) / 1e6)
    assert 1 < server.most <= 3 and set(server.keys) == {"Bearer s3cret"} and "s3cret" not in part.journal.read_text()


@pytest.mark.parametrize(
    "step",
    [
        (500, {}, b"oops"),
        (503, {}, b""),
        (429, {"Retry-After": "2"}, b"slow down"),
        (200, {"Content-Length": "9999"}, b'{"choices": [{"mess'),
        (200, {}, b"<html>not json</html>"),
        (200, {}, {"choices": []}),
        (200, {}, {"choices": [{"message": {"content": ["a"]}}]}),
        (200, {}, b'{"choices": [{"message": {"content": "\\ud800"}}]}'),
        (200, {}, b"[" * 100_000),
    ],
    ids=["500", "503", "429", "cut off", "html", "no choice", "wrong type", "half a character", "deep"],
)
def test_a_passing_failure_is_tried_again_and_the_answer_kept(step, oracle, server):
    server.script = [step, step]
    part = oracle()
    assert ask(part, "a").annotations[0].response == "TEXT A" and len(server.seen) == 3
    assert len(lines(part, "failed")) == 2 and len(lines(part, "asked")) == 3


def test_a_server_that_drips_does_not_get_round_the_time_limit(oracle, server):
    server.script = [(200, {"X-Drip": "1"}, completion("x" * 600))]
    assert ask(oracle(timeout=0.4), "a").annotations[0].response == "TEXT A" and len(server.seen) > 1


def test_a_request_to_wait_is_obeyed_by_everybody(oracle, server):
    server.script = [(429, {"Retry-After": "30"}, b"")]
    ask(oracle(workers=1), "a", "b")
    assert server.times[1] - server.times[0] >= 0.3  # 30 s, a hundred times shorter


def test_a_wait_beyond_reason_ends_the_run_instead_of_sleeping(oracle, server):
    server.script = [(429, {"Retry-After": "86400"}, b"quota")]
    with pytest.raises(DataError, match="asks to wait for 86400 s"):
        ask(oracle(), "a")


@pytest.mark.parametrize(("code", "error", "says"), [(401, ConfigError, "refuses the key"), (404, DataError, "HTTP 404"), (400, DataError, "HTTP 400"), (307, DataError, "HTTP 307")])
def test_a_lasting_failure_is_not_tried_again_nor_is_the_key_sent_elsewhere(code, error, says, oracle, server):
    server.script = [(code, {"Location": "http://127.0.0.1:9/elsewhere"}, b"because")]
    with pytest.raises(error, match=f"{says}.*because"):
        ask(oracle(), "a")
    assert len(server.seen) == 1


def test_what_was_answered_before_a_failure_is_not_paid_again(oracle, server):
    part = oracle(workers=1, attempts=2)
    server.script = [(200, {}, completion("one")), (500, {}, b""), (500, {}, b"")]
    with pytest.raises(DataError, match=r"prompt 'b'.*failed 2 times.*HTTP 500.*nothing is lost"):
        ask(part, "a", "b")
    again = ask(part, "a", "b")
    assert [a.response for a in again.annotations] == ["one", "TEXT B"] and server.seen.count("text a") == 1
    assert ask(part, "b", "a").annotations == again.annotations[::-1] and server.seen.count("text b") == 3


def test_the_cap_holds_with_many_workers_and_goes_on_when_raised(oracle, server):
    cap = {"max_tokens": 10, "workers": 4, "usd_in": 1e4, "usd_out": 1e4}
    most = (len("text a") + llm.OVERHEAD + 10) / 100  # dollars that one request can cost; each does cost 0.15
    with pytest.raises(CapReached, match=f"max_usd is {most + 0.35:g}"):
        ask(oracle(max_usd=most + 0.35, **cap), *"abcdefgh")
    assert len(server.seen) == 3  # at 0.30 spent a third still fits, at 0.45 no fourth
    batch = ask(oracle(max_usd=100.0, **cap), *"abcdefgh")
    assert len(server.seen) == len(set(server.seen)) == 8 and batch.cost.usd == pytest.approx(8 * 0.15)


def test_an_attempt_that_may_be_on_the_bill_counts_at_its_dearest(oracle, server):
    server.script = [(200, {}, b"broken")]
    part = oracle(max_tokens=10, max_total_tokens=180)
    with pytest.raises(CapReached, match="max_total_tokens is 180"):
        ask(part, "a", "b", "c")
    assert sum(row["tokens"] for state in ("failed", "answered") for row in lines(part, state)) <= 180


def test_a_request_in_the_air_when_the_process_died_counts_and_is_asked_again(oracle, server):
    part = oracle(usd_in=1.0, usd_out=1.0)
    part.journal.write_text('{"id": "a", "state": "asked", "usd": 5.0, "tokens": 7}\n{"id": "b", "state": "ans')
    assert ask(part, "a").cost.usd == pytest.approx(5.0 + 15 / 1e6)
    with pytest.raises(CapReached):
        ask(oracle(usd_in=1.0, usd_out=1.0, max_usd=4.0), "c")


@pytest.mark.parametrize("reply", [completion("half", ending="length"), completion("", ending="stop"), completion(None, ending="content_filter")])
def test_what_is_no_whole_response_is_a_skip_and_still_paid(reply, oracle, server):
    server.script = [(200, {}, reply)]
    batch = ask(oracle(usd_in=1.0, usd_out=1.0), "a")
    assert (batch.annotations[0].kind, batch.annotations[0].response, batch.cost.labels) == ("skip", "", 0) and batch.cost.usd > 0


def test_a_key_that_is_not_set_is_named_before_anything_is_sent(oracle, server, monkeypatch):
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(ConfigError, match="environment variable SOME_KEY is not set"):
        ask(oracle(), "a")
    assert ask(oracle(key_env=""), "a").annotations[0].response == "TEXT A" and server.keys == [None]
