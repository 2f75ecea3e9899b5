from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from services.shared.errors import InvalidRequest, LikenessError, PayloadTooLarge
from services.shared.multipart import MAX_PARTS, MAX_TEXT_BYTES, Upload, read_multipart

IMAGE = os.urandom(200_001)


def read(body: bytes, content_type: str, *, chunk: int = 65536, breaks_off: bool = False, **limits: Any) -> Upload:
    def messages() -> Iterator[dict[str, Any]]:
        for start in range(0, len(body), chunk):
            yield {"type": "http.request", "body": body[start : start + chunk], "more_body": True}
        if breaks_off:
            yield {"type": "http.disconnect"}
        yield {"type": "http.request", "body": b"", "more_body": False}

    coming = messages()

    async def receive() -> dict[str, Any]:
        return next(coming)

    request = Request(
        {"type": "http", "method": "POST", "headers": [(b"content-type", content_type.encode())]}, receive
    )
    return asyncio.run(read_multipart(request, frozenset({"image"}), **limits))


def encoded(data: dict[str, Any], files: dict[str, Any]) -> tuple[bytes, str]:
    request = httpx.Request("POST", "http://test/", data=data, files=files)
    return request.read(), request.headers["content-type"]


@pytest.mark.parametrize("chunk", [1, 7, 1000, 65536, 10_000_000])
def test_what_was_sent_is_what_is_read(chunk: int) -> None:
    image = IMAGE[:3000] if chunk < 1000 else IMAGE
    body, kind = encoded({"purpose": "prävention", "watchlists": ["a", "b"]}, {"image": ("x.jpg", image)})
    upload = read(body, kind, chunk=chunk)
    assert upload.texts == {"purpose": ("prävention",), "watchlists": ("a", "b")}
    assert upload.files == {"image": (image,)}


def test_bytes_that_look_like_the_boundary_are_kept() -> None:
    content = b"--bound\r\n--boun\r\n\r\n--bounda\r\n"
    body = b'--boundary\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + content + b"\r\n--boundary--\r\n"
    for chunk in (1, 3, 1000):
        assert read(body, "multipart/form-data; boundary=boundary", chunk=chunk).files["image"] == (content,)


def test_a_file_over_its_limit_is_refused_while_it_arrives() -> None:
    body, kind = encoded({}, {"image": ("x.jpg", IMAGE)})
    with pytest.raises(PayloadTooLarge):
        read(body, kind, max_file_bytes=len(IMAGE) - 1, breaks_off=True)
    assert read(body, kind, max_file_bytes=len(IMAGE)).files["image"] == (IMAGE,)


def test_a_text_over_its_limit_is_refused_and_named() -> None:
    body, kind = encoded({"purpose": "x" * 100_000}, {"image": ("x.jpg", IMAGE)})
    with pytest.raises(InvalidRequest, match="'purpose' is over"):
        read(body, kind)
    body, kind = encoded({"purpose": "x" * MAX_TEXT_BYTES}, {"image": ("x.jpg", b"x")})
    assert len(read(body, kind).texts["purpose"][0]) == MAX_TEXT_BYTES


def test_too_many_parts() -> None:
    body, kind = encoded({"a": ["x"] * MAX_PARTS}, {"image": ("x.jpg", b"x")})
    with pytest.raises(InvalidRequest, match="more than"):
        read(body, kind)


def part(headers: str, content: bytes = b"x") -> bytes:
    return b"--b\r\n" + headers.encode() + b"\r\n\r\n" + content + b"\r\n--b--\r\n"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "application/json"),
        (b"", "multipart/form-data"),
        (b"", ""),
        (b"", "multipart/form-data; boundary=b"),
        (b"garbage", "multipart/form-data; boundary=b"),
        (b"--b\r\nno colon here\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (part("Content-Disposition: form-data"), "multipart/form-data; boundary=b"),
        (part('Content-Disposition: form-data; name="image"')[:-10], "multipart/form-data; boundary=b"),
        (part('Content-Disposition: form-data; name="purpose"', b"\xff\xfe"), "multipart/form-data; boundary=b"),
        (part('Content-Disposition: form-data; name="a"\r\nX: ' + "y" * 9000), "multipart/form-data; boundary=b"),
        (part("X: y\r\n" * 50 + 'Content-Disposition: form-data; name="a"'), "multipart/form-data; boundary=b"),
        (b"", "multipart/form-data; boundary=" + "b" * 1000),
    ],
)
def test_what_is_no_form_is_refused_with_advice(body: bytes, kind: str) -> None:
    with pytest.raises(LikenessError) as caught:
        read(body, kind)
    assert caught.value.http_status == 422
    assert caught.value.advice


def test_a_client_that_goes_away() -> None:
    body, kind = encoded({}, {"image": ("x.jpg", IMAGE)})
    with pytest.raises(InvalidRequest, match="closed"):
        read(body[:1000], kind, breaks_off=True)
