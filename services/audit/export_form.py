"""The lines of an export, `likeness.audit-export.v1`, as verification.py reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from services.audit.verification import EXPORT_FORMAT

# The entry of an export, and what it and the first line both say of the recipient.
EXPORT_ACTIVITY = "audit_export"
DISCLOSED = ("approval", "recipient", "approved_by")


def entry_line(entry: bytes, leaf: bytes) -> bytes:
    """One entry as a line of an export: its canonical bytes stand in it unchanged, from the tenth byte on."""
    return b'{"entry":' + entry + b',"leaf_hash":"' + leaf.hex().encode() + b'"}\n'


def header_line(
    log_id: str, tree_size: int, keys: Iterable[tuple[str, str]], disclosed: Mapping[str, str] | None = None
) -> bytes:
    """The first line of an export; `keys` are (key id, PEM), `disclosed` is `disclosure_of` one recipient."""
    header = {
        **({"disclosed": dict(disclosed)} if disclosed else {}),
        "format": EXPORT_FORMAT,
        "keys": [{"key_id": key_id, "public_key": pem} for key_id, pem in keys],
        "log_id": log_id,
        "tree_size": tree_size,
    }
    return json.dumps({"export": header}, separators=(",", ":")).encode() + b"\n"


def disclosure_of(approval: str, recipient: str, approved_by: str) -> dict[str, str]:
    """To whom a copy was given. The log holds the same in the entry of the export, so another name is found."""
    return {
        "approval": approval,
        "approved_by": approved_by,
        "recipient": recipient,
        "watermark": f"Disclosed to {recipient} alone, approval {approval}. "
        "Personal data: not to be copied, passed on or published.",
    }
