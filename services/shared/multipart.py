"""Reading a multipart upload in memory, within limits that hold while it arrives.

FastAPI's own form parser runs before the token is looked at, spools uploads over 1 MB to disk and counts only at the
end. Here a route reads its body itself, after the token, and stops at the first byte over a limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from services.shared.errors import InvalidRequest, PayloadTooLarge
from services.shared.settings import MAX_IMAGE_BYTES

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_TEXT_BYTES = 4096  # of one text field
MAX_PARTS = 64
_FORM = "Send multipart/form-data as /docs describes it."


@dataclass(frozen=True, slots=True)
class Upload:
    """The parts of a form by field name, in the order in which they came."""

    texts: Mapping[str, tuple[str, ...]]
    files: Mapping[str, tuple[bytes, ...]]


class Spool(Protocol):
    """Where files go that are too large for memory."""

    def write(self, data: bytes) -> None:
        """Take the next bytes; quick."""
        ...

    async def drain(self) -> None:
        """Bring what was taken to where it stays, off the event loop."""
        ...


async def read_multipart(
    request: Request,
    file_fields: frozenset[str],
    *,
    max_file_bytes: int = MAX_IMAGE_BYTES,
    max_text_bytes: int = MAX_TEXT_BYTES,
    spool: Spool | None = None,
    spooled: frozenset[str] | None = None,
    max_spooled_bytes: int | None = None,
) -> Upload:
    """Read the body of a request; fields named in `file_fields` are bytes, all others UTF-8 text.

    With a `spool` the contents of files go there as they come, and the upload has b"" in their place: of all files, or
    of the fields named in `spooled`, whose limit is then `max_spooled_bytes`.

    Raises InvalidRequest (not a multipart form, malformed, broken off, too many parts, a text over its limit),
    PayloadTooLarge (a file over its limit).
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidRequest("The body is not multipart/form-data with a boundary.", advice=_FORM)
    to_spool = frozenset() if spool is None else file_fields if spooled is None else spooled
    limits = dict.fromkeys(to_spool, max_spooled_bytes or max_file_bytes)
    form = _Form(file_fields, {**dict.fromkeys(file_fields, max_file_bytes), **limits}, max_text_bytes, spool, to_spool)
    try:
        parser = MultipartParser(options[b"boundary"], form.callbacks())
        async for chunk in request.stream():
            parser.write(chunk)
            if spool is not None:
                await spool.drain()
    except FormParserError as error:
        raise InvalidRequest(f"The form is malformed: {error}", advice=_FORM) from error
    except ClientDisconnect as error:
        raise InvalidRequest("The connection was closed before the form was complete.", advice=_FORM) from error
    return form.complete()


class _Form:
    """Collects the parser's events."""

    def __init__(
        self,
        file_fields: frozenset[str],
        max_file_bytes: Mapping[str, int],
        max_text_bytes: int,
        spool: Spool | None,
        spooled: frozenset[str],
    ) -> None:
        self._spool = spool
        self._spooled = spooled
        self._file_fields = file_fields
        self._max_file_bytes = max_file_bytes
        self._max_text_bytes = max_text_bytes
        self._texts: dict[str, list[str]] = {}
        self._files: dict[str, list[bytes]] = {}
        self._parts = 0
        self._is_complete = False
        self._begin_part()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def complete(self) -> Upload:
        if not self._is_complete:
            raise InvalidRequest("The form breaks off before its end.", advice=_FORM)
        return Upload(
            texts={name: tuple(values) for name, values in self._texts.items()},
            files={name: tuple(values) for name, values in self._files.items()},
        )

    def _begin_part(self) -> None:
        self._name = ""
        self._is_file = False
        self._header = [bytearray(), bytearray()]
        self._disposition = b""
        self._chunks: list[bytes] = []
        self._size_bytes = 0

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def _end_header(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])
        self._header = [bytearray(), bytearray()]

    def _end_headers(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest(f"The form has more than {MAX_PARTS} parts.", advice=_FORM)
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if not self._name:
            raise InvalidRequest("A part of the form has no name.", advice=_FORM)
        self._is_file = self._name in self._file_fields

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size_bytes += end - start
        if self._is_file and self._size_bytes > self._max_file_bytes[self._name]:
            raise PayloadTooLarge(
                f"The field {self._name!r} is over {self._max_file_bytes[self._name] // (1024 * 1024)} MiB.",
                advice="Send a smaller file.",
            )
        if not self._is_file and self._size_bytes > self._max_text_bytes:
            raise InvalidRequest(
                f"The field {self._name[:64]!r} is over {self._max_text_bytes} bytes.", advice="Shorten it."
            )
        content = data if (start, end) == (0, len(data)) else data[start:end]
        if self._spool is not None and self._name in self._spooled:
            self._spool.write(content)
        else:
            self._chunks.append(content)

    def _end_part(self) -> None:
        content = b"".join(self._chunks)
        self._chunks = []
        if self._is_file:
            self._files.setdefault(self._name, []).append(content)
            return
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"The field {self._name[:64]!r} is not UTF-8.", advice="Send UTF-8 text.") from error
        self._texts.setdefault(self._name, []).append(text)

    def _end(self) -> None:
        self._is_complete = True
