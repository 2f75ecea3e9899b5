"""The lines of an export, `likeness.audit-export.v1`, as verification.py reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from services.audit.verification import EXPORT_FORMAT


def entry_line(entry: bytes, leaf: bytes) -> bytes:
    """One entry as a line of an export: its canonical bytes stand in it unchanged, from the tenth byte on."""
    return b'{"entry":' + entry + b',"leaf_hash":"' + leaf.hex().encode() + b'"}\n'


def header_line(log_id: str, tree_size: int, keys: Iterable[tuple[str, str]]) -> bytes:
    """The first line of an export; `keys` are (key id, PEM)."""
    header = {
        "format": EXPORT_FORMAT,
        "keys": [{"key_id": key_id, "public_key": pem} for key_id, pem in keys],
        "log_id": log_id,
        "tree_size": tree_size,
    }
    return json.dumps({"export": header}, separators=(",", ":")).encode() + b"\n"
