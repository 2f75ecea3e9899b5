"""The console's own style sheet, scripts and icon, read once and addressed by what they contain."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources

from fastapi import Request, Response

from services.shared.errors import NotFound

_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_HEADERS = {
    # The address changes with the content, and nothing in these files is about anybody.
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    compressed: bytes
    media_type: str


class StaticFiles:
    """Every file of the folder `static`, under `/console/static/<version>/`."""

    def __init__(self) -> None:
        folder = resources.files("services.review.console").joinpath("static")
        self._files = {
            item.name: _File(item.read_bytes(), gzip.compress(item.read_bytes(), 9, mtime=0), _TYPES[suffix])
            for item in sorted(folder.iterdir(), key=lambda item: item.name)
            if (suffix := item.name[item.name.rfind(".") :]) in _TYPES
        }
        digest = hashlib.sha256()
        for name, file in self._files.items():
            digest.update(name.encode() + b"\0" + file.content + b"\0")
        self.path = f"/console/static/{digest.hexdigest()[:12]}"

    def answer(self, request: Request, name: str) -> Response:
        """Raises NotFound."""
        file = self._files.get(name)
        if file is None:
            raise NotFound("There is no such file.")
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers = {**_HEADERS, "Content-Encoding": "gzip"}
            return Response(file.compressed, media_type=file.media_type, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=_HEADERS)
