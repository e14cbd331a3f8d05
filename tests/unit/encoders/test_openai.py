"""The endpoint encoder against a real HTTP server that misbehaves as real ones do."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from crossfade.encoders import OpenAIEncoder, Retries, load_encoder
from crossfade.encoders.rate_limit import TokenBucket
from crossfade.errors import ConfigError, EndpointError

QUICK = Retries(attempts=4, first_wait=0.01, longest_wait=0.05, timeout=5.0)
SECRET = "sk-do-not-tell-anyone"


def vector(text: str, dimension: int) -> list[float]:
    return [
        float(len(text) + 1),
        *(float(ord(c) % 7 + 1) for c in (text * dimension + "x" * dimension)[: dimension - 1]),
    ]


class Endpoint(ThreadingHTTPServer):
    """Answers as OpenAI does; ``plan`` holds what to do instead, one entry a request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[Any] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.server.headers.append(dict(self.headers))
        step = self.server.plan.pop(0) if self.server.plan else {}
        if step == "hang up":
            self.connection.close()
            return
        data = self._data(body)
        status = step.get("status", 200)
        if status != 200:
            self._send(
                status, step.get("body", {"error": {"code": "busy", "message": "try later"}}), step.get("headers", {})
            )
            return
        if "drop" in step:
            data = data[: -step["drop"]]
        if "shuffle" in step:
            data = data[::-1]
        if "same index" in step:
            data = [{**entry, "index": 0} for entry in data]
        if "dimension" in step:
            data = [{**entry, "embedding": vector("x", step["dimension"])} for entry in data]
        self._send(200, step.get("body", {"object": "list", "data": data}), {})

    def _data(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        rows = [vector(text, body.get("dimensions", 6)) for text in body["input"]]
        if body["encoding_format"] == "base64":
            coded = [base64.b64encode(np.asarray(row, dtype="<f4").tobytes()).decode() for row in rows]
            return [{"index": i, "embedding": row} for i, row in enumerate(coded)]
        return [{"index": i, "embedding": row} for i, row in enumerate(rows)]

    def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def expected(texts: list[str], dimension: int = 6) -> np.ndarray:
    rows = np.asarray([vector(text, dimension) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


TEXTS = [f"text {'a' * i}" for i in range(11)]


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_batches_in_order(endpoint: Endpoint, encoding_format: Any) -> None:
    encoder = OpenAIEncoder("m", base_url=endpoint.url, batch_size=4, encoding_format=encoding_format, retries=QUICK)
    endpoint.plan = [{"shuffle": True}, {}, {"shuffle": True}]
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected(TEXTS), atol=1e-6)
    assert [len(request["input"]) for request in endpoint.requests] == [1, 4, 4, 3]
    assert {request["model"] for request in endpoint.requests} == {"m"}
    assert all(headers["Authorization"] == f"Bearer {SECRET}" for headers in endpoint.headers)
    assert encoder.encode_texts([]).shape == (0, 6)


def test_the_space_and_the_dimensions(endpoint: Endpoint) -> None:
    encoder = load_encoder("openai:m-small", base_url=endpoint.url, dimensions=4, query_prefix="q: ")
    assert (encoder.space.model, encoder.space.dimension, encoder.space.modalities) == ("m-small", 4, ("text",))
    assert endpoint.requests[0]["dimensions"] == 4
    np.testing.assert_allclose(encoder.encode_texts(["a"], role="query"), expected(["q: a"], 4), atol=1e-6)
    np.testing.assert_allclose(encoder.encode_texts(["a"]), expected(["a"], 4), atol=1e-6)
    assert SECRET not in repr(encoder) + str(encoder.space.to_dict()) + str(vars(encoder))


def test_the_base_url_of_the_environment(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url + "/")
    monkeypatch.delenv("OPENAI_API_KEY")
    assert load_encoder("openai:m").space.dimension == 6
    assert "Authorization" not in endpoint.headers[0]


def test_failures_that_pass_are_tried_again(endpoint: Endpoint) -> None:
    encoder = OpenAIEncoder("m", base_url=endpoint.url, retries=QUICK)
    endpoint.plan = [{"status": 429, "headers": {"Retry-After": "0.02"}}, {"status": 503}, "hang up"]
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected(TEXTS), atol=1e-6)
    assert len(endpoint.requests) == 5


def test_retry_after_is_honoured_up_to_the_longest_wait(endpoint: Endpoint) -> None:
    encoder = OpenAIEncoder("m", base_url=endpoint.url, retries=Retries(attempts=2, first_wait=0.0, longest_wait=0.3))
    endpoint.plan = [{"status": 429, "headers": {"Retry-After": "3600"}}]
    start = time.monotonic()
    encoder.encode_texts(["a"])
    assert time.monotonic() - start >= 0.3
    endpoint.plan = [{"status": 429, "headers": {"Retry-After": formatdate(time.time() + 3600, usegmt=True)}}]
    start = time.monotonic()
    encoder.encode_texts(["a"])
    assert time.monotonic() - start >= 0.3
    endpoint.plan = [{"status": 429, "headers": {"Retry-After": "soon"}}]
    encoder.encode_texts(["a"])


def test_failures_that_do_not_pass_end_it(endpoint: Endpoint) -> None:
    encoder = OpenAIEncoder("m", base_url=endpoint.url, retries=QUICK)
    endpoint.plan = [{"status": 500}] * 4
    with pytest.raises(EndpointError, match=r"kept failing, 4 times \(status 500: busy try later\)"):
        encoder.encode_texts(["a"])
    endpoint.requests.clear()
    endpoint.plan = [{"status": 401, "body": {"error": {"code": "invalid_api_key", "message": f"bad key {SECRET}"}}}]
    with pytest.raises(EndpointError, match="status 401: its message repeats") as caught:
        encoder.encode_texts(["a"])
    assert "OPENAI_API_KEY" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert len(endpoint.requests) == 1


def test_texts_are_not_repeated_in_messages(endpoint: Endpoint) -> None:
    encoder = OpenAIEncoder("m", base_url=endpoint.url, retries=QUICK)
    endpoint.plan = [{"status": 400, "body": {"error": {"message": "cannot embed 'my private diary'"}}}]
    with pytest.raises(EndpointError, match="status 400") as caught:
        encoder.encode_texts(["my private diary"])
    assert "diary" not in str(caught.value)
    endpoint.plan = [{"status": 400, "body": b"<html>"}]
    with pytest.raises(EndpointError, match="no reason given"):
        encoder.encode_texts(["my private diary"])


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"drop": 1}, "gave 10 for 11 texts"),
        ({"same index": True}, "numbered from 0"),
        ({"body": {"data": "nothing"}}, "must answer as OpenAI"),
        ({"body": b"not json"}, "must answer as OpenAI"),
        ({"body": {"data": [{"index": 0, "embedding": "%%%"}]}}, "must answer as OpenAI"),
        ({"dimension": 9}, "gave 9 dimensions after 6"),
    ],
)
def test_answers_that_are_wrong(step: dict[str, Any], message: str, endpoint: Endpoint) -> None:
    encoder = OpenAIEncoder("m", base_url=endpoint.url, encoding_format="float", retries=QUICK)
    endpoint.plan = [step]
    with pytest.raises(EndpointError, match=message):
        encoder.encode_texts(TEXTS)


def test_nobody_there(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EndpointError, match=r"kept failing, 2 times \(ConnectError"):
        OpenAIEncoder("m", base_url="http://127.0.0.1:9/v1", retries=Retries(attempts=2, first_wait=0.01))
    with pytest.raises(EndpointError, match="cannot be asked"):
        OpenAIEncoder("m", base_url="no url", retries=QUICK)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(EndpointError, match="OPENAI_API_KEY is not set"):
        OpenAIEncoder("text-embedding-3-small")


def test_another_variable_holds_the_key(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "other")
    OpenAIEncoder("m", base_url=endpoint.url, key_variable="MY_KEY", retries=QUICK)
    assert endpoint.headers[0]["Authorization"] == "Bearer other"


class Clock:
    """Time that passes only in sleep."""

    def __init__(self) -> None:
        self.now = 0.0

    def tell(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("units", [1, 7, 50, 1500])
def test_limits_a_minute_are_kept(units: int) -> None:
    clock = Clock()
    bucket = TokenBucket(600, clock=clock.tell, sleep=clock.sleep)
    taken: list[tuple[float, int]] = []
    while clock.now < 300:
        bucket.take(units)
        taken.append((clock.now, units))
    total = sum(count for _, count in taken)
    assert total <= 600 + 600 * clock.now / 60 + units  # what may burst, what flowed in, what is paid off afterwards
    assert total >= 600 * clock.now / 60
    assert bucket.waited == pytest.approx(clock.now)


def test_a_limit_must_let_something_through() -> None:
    with pytest.raises(ConfigError, match="above 0"):
        TokenBucket(0)


def test_limits_apply_to_requests(endpoint: Endpoint) -> None:
    encoder = OpenAIEncoder("m", base_url=endpoint.url, batch_size=1, requests_per_minute=1200, texts_per_minute=1e6)
    assert encoder.encode_texts(TEXTS).shape == (11, 6)
    assert encoder._requests is not None
    assert encoder._requests.waited == 0
