"""A17, A23: no input makes a service call out; the same request again has one answer, and another body has none."""

from __future__ import annotations

import io
import struct
import uuid
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from tests.attacks.outsider import Listener, foreign_connections
from tests.attacks.scene import REQUEST, Scene, as_bearer, open_client, picture
from tests.support.casework import post_enrolment, post_search
from tests.support.platform import Platform


def luring_files(url: str) -> Iterator[tuple[str, bytes]]:
    """Files that ask whoever reads them to fetch something."""
    yield "url as text", url.encode()
    yield "playlist", f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}/a.ts\n#EXT-X-ENDLIST\n".encode()
    yield "concat", f"ffconcat version 1.0\nfile {url}/a.mp4\n".encode()
    yield "svg", f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}/a.png"/></svg>'.encode()
    yield "xml entity", f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "{url}/x">]><a>&b;</a>'.encode()
    yield "html", f'<html><img src="{url}/a.png"></html>'.encode()
    yield "postscript", f"%!PS\n({url}) (r) file\n".encode()
    yield "png with xmp", _png_with_xmp(url)
    yield "jpeg with xmp", _jpeg_with_xmp(url)
    yield "mvg", f"push graphic-context\nimage over 0,0 0,0 '{url}/a.png'\n".encode()


def _png_with_xmp(url: str) -> bytes:
    plain = picture(8)
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0" + _xmp(url)
    body = b"iTXt" + xmp
    chunk = struct.pack(">I", len(xmp)) + body + struct.pack(">I", zlib.crc32(body))
    return plain[:33] + chunk + plain[33:]


def _jpeg_with_xmp(url: str) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(picture(8))).save(stream, "JPEG", xmp=_xmp(url))
    return stream.getvalue()


def _xmp(url: str) -> bytes:
    reference = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a href="{url}" rdf:resource="{url}"/></x:xmpmeta>'
    return reference.encode()


def test_a17_no_file_makes_a_service_call_out(platform: Platform, scene: Scene, listener: Listener) -> None:
    with platform.client("search", "operator", timeout_s=60) as client:
        for name, content in luring_files(listener.url):
            answer = post_search(client, content)
            assert answer.status_code in {200, 422}, (name, answer.text)
    with platform.client("ingest", "custodian", timeout_s=60) as client:
        for name, content in luring_files(listener.url):
            assert post_enrolment(client, content, f"A17-{name}").status_code < 500, name
    assert listener.connections == 0


def test_a17_no_film_makes_a_service_call_out(platform: Platform, scene: Scene, listener: Listener) -> None:
    """A demultiplexer is where playlists and lists of files are followed: none is opened that names another file."""
    form = {"case_reference": "NC/A17", "purpose": "prevention_and_detection", "offence": "burglary"}
    form |= {"source": "cctv", "watchlists": "custody"}
    with platform.client("search", "operator", timeout_s=60) as client:
        for name, content in luring_films(listener.url):
            answer = client.post("/v1/films", data=form, files={"film": ("film.mp4", content, "video/mp4")})
            assert answer.status_code == 422, (name, answer.text)
    # Casework seals a film as it came; it is opened when somebody has it read.
    with platform.client("review", "requester", timeout_s=60) as officer:
        films = dict(luring_films(listener.url))
        sent = officer.post("/v1/requests", data=REQUEST, files={"film": ("film.mp4", films["playlist"], "video/mp4")})
        assert sent.status_code == 201, sent.text
    case = f"/v1/casework/{sent.json()['request_id']}"
    with platform.client("review", "operator", timeout_s=60) as operator:
        accepted = operator.post(f"{case}/acceptance", json={"version": 1, "reason": "Lawful and needed."})
        assert accepted.status_code == 200, accepted.text
        [film] = operator.get(case).json()["case"]["films"]
        read = operator.post(f"{case}/films/{film['film_id']}/reading", json={"version": accepted.json()["version"]})
        assert read.status_code == 422, read.text
    assert listener.connections == 0


def luring_films(url: str) -> Iterator[tuple[str, bytes]]:
    """Files that have a demultiplexer open others."""
    yield from ((name, content) for name, content in luring_files(url) if name in {"playlist", "concat", "url as text"})
    yield "dash", f'<?xml version="1.0"?><MPD><BaseURL>{url}/</BaseURL></MPD>'.encode()
    yield "sdp", f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\na=control:{url}\nm=video 9 RTP/AVP 96\n".encode()
    yield "quicktime reference", _box(b"moov", _box(b"rmra", _box(b"rmda", _rdrf(url))))
    yield "imf", f"<CompositionPlaylist><Id>{url}</Id></CompositionPlaylist>".encode()


def _rdrf(url: str) -> bytes:
    address = url.encode() + b"\0"
    return _box(b"rdrf", b"\0\0\0\0url " + struct.pack(">I", len(address)) + address)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content


@pytest.mark.parametrize("field", ["image", "image_url", "url", "webhook", "callback", "source"])
def test_a17_no_field_takes_an_address(platform: Platform, scene: Scene, listener: Listener, field: str) -> None:
    form = {"case_reference": "NC/A17", "purpose": "prevention_and_detection", "offence": "burglary"}
    form |= {"source": "cctv", "watchlists": "custody"}
    with platform.client("search", "operator") as client:
        for address in (listener.url, "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd"):
            answer = client.post("/v1/searches", data={**form, field: address}, files={"none": b""})
            assert answer.status_code == 422, answer.text
    assert listener.connections == 0


def test_a17_services_speak_to_each_other_and_to_nobody_else(platform: Platform, scene: Scene) -> None:
    assert foreign_connections(platform) == []


def test_a23_the_same_request_again_is_answered_once(platform: Platform, scene: Scene) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    token = as_bearer(scene.token("operator"))
    with open_client(platform, "search", **token, **key) as client:
        first = post_search(client, picture(9))
        again = post_search(client, picture(9))
        other_image = post_search(client, picture(10))
        other_case = post_search(client, picture(9), case_reference="NC/OTHER")
    assert first.status_code == again.status_code == 200
    assert again.json()["search_id"] == first.json()["search_id"]
    assert again.json()["candidates"] == first.json()["candidates"]
    for answer in (other_image, other_case):
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_reused")
    searches = scene.audit_entries(activity_id=first.json()["search_id"])
    assert sorted(entry["phase"] for entry in searches) == ["DONE", "INTENT"]


def test_a23_a_key_is_its_owners_alone(platform: Platform, scene: Scene) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    with open_client(platform, "search", **as_bearer(scene.token("operator")), **key) as client:
        mine = post_search(client, picture(11))
    stranger = platform.token("operator", person_id="somebody-else")
    with open_client(platform, "search", **as_bearer(stranger), **key) as client:
        theirs = post_search(client, picture(11))
    assert mine.status_code == theirs.status_code == 200
    assert mine.json()["search_id"] != theirs.json()["search_id"]


def test_a23_twenty_at_once_have_one_answer(platform: Platform, scene: Scene) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}

    def once(_: int) -> httpx.Response:
        with open_client(platform, "search", **as_bearer(scene.token("operator")), **key) as client:
            return post_search(client, picture(12))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(once, range(20)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    ids = {answer.json()["search_id"] for answer in answers if answer.status_code == 200}
    assert len(ids) == 1
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"search_running"}


def test_a23_an_enrolment_again_is_the_same_enrolment(platform: Platform, scene: Scene) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    with open_client(platform, "ingest", **as_bearer(scene.token("custodian")), **key) as client:
        first = post_enrolment(client, picture(13), "A23-1")
        again = post_enrolment(client, picture(13), "A23-1")
        other = post_enrolment(client, picture(14), "A23-1")
    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 409)
    assert again.json()["enrolment_id"] == first.json()["enrolment_id"]
