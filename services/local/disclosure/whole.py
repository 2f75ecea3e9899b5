"""Whether a bundle keeps back a judgement: nothing in it can tell, for an entry may be taken out with what it records.

The whole log tells, as an export or a store. It is verified first, as `likeness audit verify` does it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.audit.verifying import entries_of, verify
from services.local.disclosure.bundle import Bundle

_REQUEST = "request:"
_Facts = Mapping[str, Any]


def compare_with_log(
    bundle: Bundle,
    log: Path,
    is_adjudication: Callable[[_Facts], bool],
    *,
    witness: Path | None,
    public_keys: Sequence[Ed25519PublicKey],
) -> int:
    """How many adjudications the log has of this search up to the bundle's checkpoint, all of which are in the bundle.

    Raises ValueError that says what is wrong, VerificationFailed for the log itself.
    """
    report, head = verify(log, witness=witness, public_keys=public_keys), bundle.checkpoint
    if report.log_id != head.log_id:
        raise ValueError(f"the log is {report.log_id}, the bundle is of the log {head.log_id}")
    if report.entries < head.tree_size:
        raise ValueError(
            f"the log given has {report.entries} entries, the bundle's checkpoint is over {head.tree_size}"
        )
    given = {entry.sequence: entry.canonical for entry in bundle.entries}
    of_case: list[_Facts] = []
    for sequence, canonical in _up_to(log, head.tree_size):
        if given.get(sequence, canonical) != canonical:
            raise ValueError(f"entry {sequence} of the log is another one than the bundle's")
        facts = json.loads(canonical)
        if facts["case_reference"] == bundle.answer["request"]["case_reference"]:
            of_case.append(facts)
    due = {facts["sequence"] for facts in _naming(of_case, f"search:{bundle.search_id}") if is_adjudication(facts)}
    if missing := due - given.keys():
        raise ValueError(f"the adjudication at {min(missing)} is left out, and its entry with it")
    return len(due)


def _up_to(log: Path, size: int) -> Iterator[tuple[int, bytes]]:
    return zip(range(size), entries_of(log), strict=False)


def _naming(of_case: Sequence[_Facts], search: str) -> list[_Facts]:
    """Entries that name the search, or a request that stands beside it in one of them."""
    beside = {name for facts in of_case if search in facts["objects"] for name in facts["objects"]}
    wanted = {search, *(name for name in beside if name.startswith(_REQUEST))}
    return [facts for facts in of_case if wanted.intersection(facts["objects"])]
