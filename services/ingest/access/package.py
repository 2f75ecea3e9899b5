"""The package as a zip file: what is in it, its manifest, its check."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from services.ingest.access.facts import Facts
from services.ingest.life.certificates import CertificateSigner, leads_to_root, verify_signed
from services.rpc.v1 import audit_pb2
from services.shared.errors import IntegrityError, InvalidRequest

FORMAT = "likeness-access-package/1"
MANIFEST = "manifest.json"
README = "README.txt"
# In memory while it is made; a hundred custody images are a fifth of it.
MAX_BYTES = 512 * 1024 * 1024
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file knows: when it was made stands in the manifest
_SUFFIXES = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG", "png"), (b"RIFF", "webp"), (b"BM", "bmp"), (b"GIF8", "gif"))

_EXPLAINED = """What the police force `{owner}` keeps of you in its facial search system, as of {made_at}.

images/           every image, as it was received
enrolments.json   each image: where and when it was taken, on what lawful basis it is held, in which list it can be
                  searched, its measured quality, and what became of it
custody.json      what the custody system said: custody records, disposals, what was received and when
retention.json    reviews of whether to keep an image, what was decided, and what was erased
flags.json        questions that the system put to a custodian about your images, without other people's data
{searches}
audit.json        the positions of these records in the tamper-evident log, with proofs
manifest.json     the SHA-256 of every file here, signed by the platform

A numeric template is computed from each image, by which it is compared. It is not in this package: it is meaningless
outside this system, and no template ever leaves it. Names of staff and data of other people are left out.
"""
_WITH_SEARCHES = """\
searches.json     in which searches one of your images was shown to a trained operator as a candidate, when, for which
                  purpose, by which force. To be shown is not to be named: most candidates are someone else
disclosures.json  where one of your images was released as a potential name, or was given to another body"""


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def image_name(sha256: str, content: bytes) -> str:
    suffix = next((suffix for magic, suffix in _SUFFIXES if content.startswith(magic)), "bin")
    return f"images/{sha256}.{suffix}"


def readme(owner: str, made_at: str, *, has_searches: bool) -> bytes:
    searches = _WITH_SEARCHES if has_searches else "No list of searches and disclosures is part of this package."
    return _EXPLAINED.format(owner=owner, made_at=made_at, searches=searches).encode()


def json_file(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def proof_facts(entry: audit_pb2.ProvenEntry) -> dict[str, Any]:
    """What is said of an entry: never its text, which names staff."""
    said = json.loads(entry.canonical)
    return {
        "sequence": entry.sequence,
        "leaf_hash": hashlib.sha256(b"\x00" + entry.canonical).hexdigest(),
        "path": [step.hex() for step in entry.path],
        "activity": said.get("activity", ""),
        "operation": said.get("operation", ""),
        "phase": said.get("phase", ""),
        "occurred_at": said.get("occurred_at", ""),
    }


def checkpoint_facts(checkpoint: audit_pb2.Checkpoint) -> dict[str, Any]:
    return {
        "log_id": checkpoint.log_id,
        "tree_size": checkpoint.tree_size,
        "root_hash": checkpoint.root_hash.hex(),
        "created_at": checkpoint.created_at,
        "key_id": checkpoint.key_id,
        "signature": checkpoint.signature.hex(),
    }


def manifest_body(head: Facts, files: Mapping[str, bytes], audit: Facts) -> dict[str, Any]:
    """`head`: whose package, why, when. `audit`: the proof that giving it was recorded beforehand."""
    listed = [
        {"path": name, "sha256": sha256_of(content), "size_bytes": len(content)}
        for name, content in sorted(files.items())
    ]
    return {"format": FORMAT, **head, "files": listed, "audit": dict(audit)}


def zip_of(files: Mapping[str, bytes], manifest: str) -> bytes:
    """Stored, not compressed: images are already, and the same package is the same bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in [*sorted(files.items()), (MANIFEST, manifest.encode())]:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return stream.getvalue()


def sign_package(signer: CertificateSigner, head: Facts, files: Mapping[str, bytes], audit: Facts) -> bytes:
    return zip_of(files, signer.sign(manifest_body(head, files, audit)))


def require_size(files: Mapping[str, bytes]) -> None:
    if sum(map(len, files.values())) > MAX_BYTES:
        raise InvalidRequest(
            "The images of this subject are over 512 MiB together.",
            advice="Ask the operators to make the package from the image store.",
            code="package_too_large",
        )


def verify_package(content: bytes, public_key_pem: bytes) -> dict[str, Any]:
    """The manifest's facts, after these checks, each of which raises IntegrityError:

    1. it is a zip file with a manifest, in canonical form, whose signature is the key's;
    2. the files are those of the manifest, no more and no fewer, with these SHA-256 values;
    3. every audit entry named is in the tree whose root its checkpoint states.

    Not proven: that a checkpoint is the log's. `likeness audit verify` compares it with the log and its witness.
    """
    files = _files(content)
    if MANIFEST not in files:
        raise IntegrityError("That is no access package: it has no manifest.")
    body = verify_signed(files.pop(MANIFEST), public_key_pem, FORMAT)
    told = {each["path"]: each["sha256"] for each in body["files"]}
    found = {name: sha256_of(held) for name, held in files.items()}
    wrong = sorted(name for name in {*told, *found} if told.get(name) != found.get(name))
    if wrong:
        raise IntegrityError(f"Not as the manifest says: {', '.join(wrong[:5])}.")
    proofs: Sequence[Mapping[str, Any]] = [body["audit"], *json.loads(files["audit.json"])["activities"]]
    for proof in proofs:
        for entry in proof["entries"]:
            if not leads_to_root(entry, proof["checkpoint"]):
                raise IntegrityError(f"Audit entry {entry['sequence']} is not in the tree that its checkpoint states.")
    return body


def _files(content: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if len(set(names)) < len(names):
                raise IntegrityError("The package holds one name twice.")
            if sum(each.file_size for each in archive.infolist()) > 2 * MAX_BYTES:
                raise IntegrityError("The package unpacks to more than any that was made.")
            return {name: archive.read(name) for name in names}
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise IntegrityError("That is no zip file, or it is damaged.") from error
