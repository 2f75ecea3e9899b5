"""Certificates of erasure against the audit log's own tree: every position proves, every change is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.audit.merkle import inclusion_ranges
from services.audit.verification import leaf_hash, node_hash
from services.ingest.life.certificates import CertificateSigner, certificate_body, verify_certificate
from services.ingest.life.erasure import ErasedRow, Erasure
from services.rpc.v1 import audit_pb2
from services.shared.canonical import canonical_bytes
from services.shared.errors import ConfigurationError, IntegrityError

ERASURE = Erasure(
    "e-1",
    "northshire",
    "S-1",
    True,
    ("x-1",),
    "acquitted",
    "request 1",
    "c-1",
    1_780_000_000_000,
    0,
    done={"images": 1},
)
ROWS = [ErasedRow("x-1", "r-1", 7, "custody", "a" * 64, "m1")]


def root_of(leaves: list[bytes]) -> bytes:
    """RFC 6962, as it defines it."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return node_hash(root_of(leaves[:split]), root_of(leaves[split:]))


def path_of(sequence: int, leaves: list[bytes]) -> list[bytes]:
    return [root_of(leaves[start:end]) for start, end in inclusion_ranges(sequence, len(leaves))]


def certificate(signer: CertificateSigner, sequence: int, size: int) -> str:
    leaves = [leaf_hash(str(number).encode()) for number in range(size)]
    appended = audit_pb2.AppendResponse(sequence=sequence, leaf_hash=leaves[sequence])
    proof = audit_pb2.InclusionProof(sequence=sequence, tree_size=size, path=path_of(sequence, leaves))
    checkpoint = audit_pb2.Checkpoint(log_id="l", tree_size=size, root_hash=root_of(leaves))
    entries = {"intent": (appended, proof), "outcome": (appended, proof)}
    return signer.sign(certificate_body(ERASURE, ROWS, entries, checkpoint, is_sealed=True, now_ms=1_780_000_001_000))


def test_every_entry_of_every_tree_proves_and_no_other_does(tmp_path: Path) -> None:
    signer = CertificateSigner(tmp_path / "key.pem")
    public_key = signer.public_key_pem.encode()
    for size in (1, 2, 3, 5, 7, 8, 13):
        for sequence in range(size):
            document = certificate(signer, sequence, size)
            assert verify_certificate(document, public_key)["subject_id"] == "S-1"
            body = json.loads(document)["certificate"]
            body["audit"]["entries"]["intent"]["sequence"] = (sequence + 1) % (size + 1)
            with pytest.raises(IntegrityError):
                verify_certificate(signer.sign(body), public_key)


def test_another_key_form_or_signature_is_refused(tmp_path: Path) -> None:
    signer, other = CertificateSigner(tmp_path / "key.pem"), CertificateSigner(tmp_path / "other.pem")
    document = certificate(signer, 2, 5)
    assert CertificateSigner(tmp_path / "key.pem").public_key_pem == signer.public_key_pem
    public_key = signer.public_key_pem.encode()
    value = json.loads(document)
    value["signature"]["value"] = "00" * 64
    wrong = [
        (document, other.public_key_pem.encode()),
        (json.dumps(json.loads(document)), public_key),
        (canonical_bytes(value).decode(), public_key),
        ("{}", public_key),
        ("no JSON", public_key),
    ]
    for text, key in wrong:
        with pytest.raises(IntegrityError):
            verify_certificate(text, key)


def test_a_key_file_that_is_none_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(ConfigurationError):
        CertificateSigner(tmp_path / "key.pem")
