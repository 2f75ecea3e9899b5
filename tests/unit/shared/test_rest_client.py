"""What a command says when a service refuses, is not there, or is no service of ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from services.shared.errors import ConfigurationError, DependencyUnavailable, Forbidden, InvalidRequest, LikenessError
from services.shared.rest_client import RestClient

ANSWERS = {
    "/good": (200, b'{"bearer": "%s"}'),
    "/field": (
        422,
        b'{"code": "invalid_request", "detail": "Missing or invalid: mode.", "advice": "Correct it.",'
        b' "fields": [{"field": "mode", "problem": "One of this, that."}]}',
    ),
    "/forbidden": (403, b'{"code": "forbidden", "detail": "Only operators may.", "advice": "Ask."}'),
    "/newer": (418, b'{"code": "not_known_here", "detail": "Something new.", "advice": ""}'),
    "/proxy": (502, b"<html>Bad gateway</html>"),
    "/list": (200, b"[1]"),
}


class _Service(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = ANSWERS[self.path]
        body = body.replace(b"%s", self.headers["Authorization"].encode())
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "operator.token"
    path.write_text("abc\n")
    return path


def test_the_token_goes_with_the_request(url: str, token: Path) -> None:
    with RestClient("search", url, token) as client:
        assert client.json("GET", "/good") == {"bearer": "Bearer abc"}


@pytest.mark.parametrize(
    ("path", "kind", "detail"),
    [
        ("/field", InvalidRequest, "Missing or invalid: mode.\n  mode: One of this, that."),
        ("/forbidden", Forbidden, "Only operators may."),
        ("/newer", LikenessError, "Something new."),
        ("/proxy", DependencyUnavailable, "The answer (502) is not Likeness's."),
        ("/list", DependencyUnavailable, "The answer (200) is not Likeness's."),
    ],
)
def test_a_refusal_is_told_in_the_service_s_words(
    url: str, token: Path, path: str, kind: type[LikenessError], detail: str
) -> None:
    with RestClient("search", url, token) as client, pytest.raises(kind) as refused:
        client.json("GET", path)
    assert refused.value.detail == detail


def test_a_stream_is_refused_before_it_is_read(url: str, token: Path) -> None:
    with RestClient("audit", url, token) as client:
        with pytest.raises(Forbidden), client.streamed("GET", "/forbidden"):
            pytest.fail("a refused stream was given out")
        with client.streamed("GET", "/list") as answer:
            assert b"".join(answer.iter_bytes()) == b"[1]"


@pytest.mark.parametrize("nowhere", ["http://127.0.0.1:1", "not an address"])
def test_where_nothing_listens_the_address_and_the_way_out_are_named(nowhere: str, token: Path) -> None:
    with RestClient("search", nowhere, token) as client, pytest.raises(DependencyUnavailable) as refused:
        client.json("GET", "/good")
    assert f"search does not answer at {nowhere}" in refused.value.detail
    assert "likeness up" in refused.value.advice


@pytest.mark.parametrize("content", [None, "é".encode()])
def test_a_token_file_that_is_none_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "some.token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"some\.token cannot be read: "):
        RestClient("search", "http://127.0.0.1:1", path)


def test_what_goes_wrong_while_a_stream_is_read_is_the_reader_s(url: str, token: Path) -> None:
    with (
        RestClient("audit", url, token) as client,
        pytest.raises(httpx.ReadError),
        client.streamed("GET", "/list"),
    ):
        raise httpx.ReadError("the line is cut")
