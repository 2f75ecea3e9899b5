"""Keys that follow one another: each new one is vouched for by the old."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from services.audit.ports import PublishedKey
from services.audit.reading import export_lines
from services.audit.signing import create_signing_key, load_signer, rotate_key
from services.audit.verification import VerificationFailed, endorsed_key, main, parse_checkpoint, read_public_key
from services.audit.verifying import LogReport, verify
from services.shared.clock import SystemClock
from services.shared.errors import ConfigurationError
from tests.unit.audit.builders import local_log


def test_a_rotated_key_is_trusted_because_the_old_one_endorses_it(tmp_path: Path) -> None:
    """Also twice over, and from the oldest key alone; a key that was merely put there is not."""
    with local_log(tmp_path, entries=5) as opened:
        opened.fill(12)
        log_id = opened.log.log_id
        [first] = opened.store.published_keys()
    trusted = [read_public_key(first.public_key.encode())]
    for _ in range(2):
        rotate_key(tmp_path / "key.pem", log_id, SystemClock().now())
        with local_log(tmp_path, entries=5) as opened:
            opened.fill(12)
    store = tmp_path / "audit.sqlite"
    report = verify(store, public_keys=trusted)
    assert (report.entries, report.endorsed_keys) == (38, 2)
    with local_log(tmp_path) as opened:
        kept = opened.log.checkpoint(fresh=True)
    assert verify(store, public_keys=trusted, checkpoints=[kept]).witnessed == 1

    (tmp_path / "key.pem").unlink()
    create_signing_key(tmp_path / "key.pem")
    with local_log(tmp_path, entries=5) as opened:
        opened.fill(6)
    with pytest.raises(VerificationFailed, match="not trusted") as failure:
        verify(store, public_keys=trusted)
    assert failure.value.check == 6


def test_a_key_that_was_replaced_signs_nothing_any_more(tmp_path: Path) -> None:
    """Whoever kept the old key changes what came after the change of keys, and signs it: found, with every key trusted,
    with the old one alone, and by the file for the defence's expert."""
    key, old_key, export = tmp_path / "key.pem", tmp_path / "kept.pem", tmp_path / "export.jsonl"
    with local_log(tmp_path, entries=100) as opened:
        opened.fill(4)
        log_id = opened.log.log_id
    old_key.write_bytes(key.read_bytes())
    old_key.chmod(0o600)
    rotate_key(key, log_id, SystemClock().now())
    with local_log(tmp_path, entries=100) as opened:
        opened.fill(4)
        opened.log.checkpoint(fresh=True)
        published = opened.store.published_keys()
        export.write_bytes(b"".join(export_lines(opened.store, opened.log.checkpoint())))
    assert _verified(export, published).entries == 9

    lines = export.read_bytes().splitlines(keepends=True)
    last = parse_checkpoint(lines.pop())
    forged = load_signer(old_key).sign(log_id, last.tree_size, last.root_hash, SystemClock().now())
    export.write_bytes(b"".join(lines) + forged.document() + b"\n")
    for trusted in ([], published[:1], published):
        with pytest.raises(VerificationFailed, match="entry 4 replaced") as failure:
            _verified(export, trusted)
        assert failure.value.check == 6
    assert main([str(export)]) == 1

    key.write_bytes(old_key.read_bytes())
    with pytest.raises(ConfigurationError, match="was replaced"), local_log(tmp_path):
        pass


def _verified(export: Path, trusted: Sequence[PublishedKey]) -> LogReport:
    return verify(export, public_keys=[read_public_key(key.public_key.encode()) for key in trusted])


def test_an_endorsement_of_something_else_is_none(tmp_path: Path) -> None:
    create_signing_key(tmp_path / "key.pem")
    old, moment = load_signer(tmp_path / "key.pem"), SystemClock().now()
    create_signing_key(tmp_path / "new.pem")
    new = load_signer(tmp_path / "new.pem")
    trusted = {old.key_id: read_public_key(old.public_key_pem.encode())}
    document = old.endorse("log-1", new.key_id, moment).decode()
    assert endorsed_key(document, new.public_key_pem, "log-1", trusted)[0] == new.key_id
    with pytest.raises(ValueError, match="another log"):
        endorsed_key(document, new.public_key_pem, "log-2", trusted)
    with pytest.raises(ValueError, match="another key"):
        endorsed_key(document, old.public_key_pem, "log-1", trusted)
    with pytest.raises(ValueError, match="not trusted"):
        endorsed_key(new.endorse("log-1", new.key_id, moment).decode(), new.public_key_pem, "log-1", trusted)
    own = new.endorse("log-1", new.key_id, moment).decode()
    forged = own.replace(f'"old_key":"{new.key_id}"', f'"old_key":"{old.key_id}"')
    with pytest.raises(ValueError, match="not valid"):
        endorsed_key(forged, new.public_key_pem, "log-1", trusted)
    with pytest.raises(ValueError, match="another log or another key"):
        endorsed_key("[]", new.public_key_pem, "log-1", trusted)
