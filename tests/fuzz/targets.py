"""What is fuzzed: each target takes bytes that a stranger chose and may answer with its own errors and no other."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Attempt = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """`modules` are instrumented for coverage before they are imported; `prepare` makes the function that is called.

    `seeds` are made by code: none is a file of somebody else's.
    """

    name: str
    modules: Sequence[str]
    prepare: Callable[[], Attempt]
    seeds: Callable[[], list[bytes]]


def _image_gate() -> Attempt:
    from services.embed.gate.decode import decode, prepare_decoders  # noqa: PLC0415 - instrumented first
    from services.embed.gate.limits import GateLimits, TooManyPixels, Undecodable  # noqa: PLC0415

    limits = GateLimits(max_pixels=1_000_000, cpu_s=5, memory_bytes=0)
    prepare_decoders(limits)
    pixels = bytearray(3 * limits.max_pixels)

    def attempt(data: bytes) -> None:
        try:
            image = decode(memoryview(data), memoryview(pixels), limits)
        except (Undecodable, TooManyPixels, MemoryError):
            return
        assert 0 < image.stored_width * image.stored_height <= limits.max_pixels
        assert 1 <= image.orientation <= 8

    return attempt


def _pictures() -> list[bytes]:
    import pillow_heif  # noqa: PLC0415 - only where pictures are made
    from PIL import Image  # noqa: PLC0415

    pillow_heif.register_heif_opener()
    picture = Image.linear_gradient("L").resize((24, 16)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    made = []
    for form in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "HEIF"):
        stream = io.BytesIO()
        picture.save(stream, form, exif=exif) if form in {"JPEG", "PNG", "WEBP", "AVIF"} else picture.save(stream, form)
        made.append(stream.getvalue())
    return made


TOPICS = tuple(
    f"likeness.{kind}.v1"
    for kind in (
        "custody-image-received",
        "custody-disposal-changed",
        "custody-subject-merged",
        "custody-subject-split",
        "custody-image-withdrawn",
    )
)


def _event_parser() -> Attempt:
    from services.ingest.feed.messages import about, parse  # noqa: PLC0415 - instrumented first
    from services.shared.consume import InvalidMessage  # noqa: PLC0415
    from services.shared.ports.event_log import ReceivedEvent  # noqa: PLC0415

    def attempt(data: bytes) -> None:
        kind, form, value = data[:1] or b"\0", data[1:2] or b"\0", data[2:]
        headers = {"content-type": "application/json"} if form[0] % 2 else {}
        event = ReceivedEvent(TOPICS[kind[0] % len(TOPICS)], 0, 0, "northshire/1", value, headers)
        about(event)
        try:
            found = parse(event)
        except InvalidMessage:
            return
        assert found.event_id
        assert len(found.digest) == 64

    return attempt


def _events() -> list[bytes]:
    from google.protobuf.json_format import MessageToJson  # noqa: PLC0415 - only where events are made

    from services.rpc.v1 import events_pb2  # noqa: PLC0415

    common: dict[str, Any] = {
        "event_id": "e-1",
        "owner": "northshire",
        "subject_id": "S-1",
        "occurred_at": "2026-03-01T10:00:00Z",
    }
    messages = [
        events_pb2.CustodyImageReceived(**common, watchlist_id="custody", captured_on="2026-03-01", image=b"\xff\xd8"),
        events_pb2.CustodyDisposalChanged(**common, disposal="charged"),
        events_pb2.CustodySubjectMerged(**common, into_subject_id="S-2"),
        events_pb2.CustodySubjectSplit(**common, into_subject_id="S-2", image_sha256s=["0" * 64]),
        events_pb2.CustodyImageWithdrawn(**common, image_sha256="0" * 64),
    ]
    binary = [bytes([number, 0]) + each.SerializeToString() for number, each in enumerate(messages)]
    text = [bytes([number, 1]) + MessageToJson(each).encode() for number, each in enumerate(messages)]
    return binary + text


def _audit_verifier() -> Attempt:
    from services.audit.verification import VerificationFailed  # noqa: PLC0415 - instrumented first
    from services.audit.verifying import verify  # noqa: PLC0415 - instrumented first

    # In memory where there is such a place: a file is written for every attempt.
    memory = Path("/dev/shm")  # noqa: S108 - nobody else reads it
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() and os.access(memory, os.W_OK) else None))
    path = folder / "export.jsonl"

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        try:
            verify(path)
        except VerificationFailed as failure:
            assert failure.check in range(1, 10)

    return attempt


def _exports() -> list[bytes]:
    from services.audit.reading import export_lines  # noqa: PLC0415 - only where exports are made
    from tests.unit.audit.builders import local_log  # noqa: PLC0415

    made = []
    with tempfile.TemporaryDirectory() as folder, local_log(Path(folder)) as kept:
        for count in (0, 1, 4):
            kept.fill(count)
            made.append(b"".join(export_lines(kept.store, kept.log.checkpoint(fresh=True))))
    return made


class _Reader:
    """A verifier and its two files, of which an attempt replaces one or gives a token."""

    def __init__(self) -> None:
        from services.shared.tokens import TokenVerifier  # noqa: PLC0415 - instrumented first
        from tests.unit.shared.issuer import Issuer  # noqa: PLC0415

        self.issuer = Issuer(Path(tempfile.mkdtemp()))
        self.revocations = self.issuer.settings.jwks_path.with_name("revocations.json")
        self.revocations.write_text('{"tokens": {}, "persons": {}}')
        self.jwks = self.issuer.settings.jwks_path.read_bytes()
        settings = self.issuer.settings.model_copy(update={"revocations_path": self.revocations})
        self.verifier = TokenVerifier(settings)
        self.good = self.issuer.token(exp=4_000_000_000)


def _token_parser() -> Attempt:
    import structlog  # noqa: PLC0415 - instrumented first

    from services.shared.errors import ConfigurationError, Unauthenticated  # noqa: PLC0415 - instrumented first

    # A line for every refused token is a service's, and would be what is measured here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    reader = _Reader()
    places = (None, reader.issuer.settings.jwks_path, reader.revocations)

    def attempt(data: bytes) -> None:
        place = places[(data[:1] or b"\0")[0] % len(places)]
        content = data[1:]
        token = content.decode("latin-1") if place is None else reader.good
        before = b"" if place is None else place.read_bytes()
        if place is not None:
            place.write_bytes(content)
        try:
            principal = reader.verifier.verify(token)
            assert principal.person_id == "op-7", "a token that nobody signed"
        except (Unauthenticated, ConfigurationError):
            return
        finally:
            if place is not None:
                place.write_bytes(before)

    return attempt


def _tokens() -> list[bytes]:
    reader = _Reader()
    header, payload, signature = reader.good.split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": "key-1"}).encode()).rstrip(b"=").decode()
    tokens = [reader.good, f"{none}.{payload}.", f"{header}.{payload}.", f"{header}..{signature}", "a.b.c", ""]
    revoked = json.dumps({"tokens": {"t-1": 5}, "persons": {"op-8": 1}}).encode()
    return [b"\0" + each.encode() for each in tokens] + [b"\1" + reader.jwks, b"\2" + revoked]


TARGETS = {
    target.name: target
    for target in (
        Target("image-gate", ("services.embed.gate", "PIL"), _image_gate, _pictures),
        Target("event-parser", ("services.ingest.feed.messages", "google.protobuf"), _event_parser, _events),
        Target("audit-verifier", ("services.audit.verification",), _audit_verifier, _exports),
        Target("token-parser", ("services.shared", "jwt"), _token_parser, _tokens),
    )
}
