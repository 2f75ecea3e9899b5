"""The code printed on a result: `likeness:<sequence>:<leaf hash>`, the place of its release in the audit log."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.audit.verification import leaf_hash
from services.audit.verifying import LogReport, entry_at, verify

_CODE = re.compile(r"likeness:(0|[1-9][0-9]{0,18}):([0-9a-f]{64})")


class CodeRefused(Exception):
    """The code is none, or the log does not hold what it stands for. The message says which."""


@dataclass(frozen=True, slots=True)
class PrintedCode:
    """`leaf_hash`: RFC 6962 hash of the entry's canonical bytes."""

    sequence: int
    leaf_hash: bytes

    @classmethod
    def parse(cls, text: str) -> PrintedCode:
        """Raises CodeRefused. Spaces and line ends, as copying from paper brings them, are left out."""
        found = _CODE.fullmatch("".join(text.split()).lower())
        if found is None:
            raise CodeRefused("That is no code of a result: likeness:<number>:<64 hex digits>.")
        return cls(int(found[1]), bytes.fromhex(found[2]))


def is_code(text: str) -> bool:
    return text.strip().lower().startswith("likeness:")


def verify_code(
    text: str, log: Path, *, witness: Path | None, public_keys: Sequence[Ed25519PublicKey]
) -> tuple[LogReport, dict[str, Any]]:
    """Check, offline, in this order:

    1. the code is well formed;
    2. every check of `likeness audit verify` passes on the log (an export or a store);
    3. the log has an entry of that number, and its hash is the code's.

    Returns the log's report and what the entry says. Raises CodeRefused, VerificationFailed.
    """
    code = PrintedCode.parse(text)
    report = verify(log, witness=witness, public_keys=public_keys)
    entry = entry_at(log, code.sequence)
    if entry is None:
        raise CodeRefused(f"The log ends before entry {code.sequence}: it has {report.entries} entries.")
    if leaf_hash(entry) != code.leaf_hash:
        raise CodeRefused(f"Entry {code.sequence} of the log is another one than the code stands for.")
    said: dict[str, Any] = json.loads(entry)
    return report, said
