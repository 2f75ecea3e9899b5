"""Keys that follow one another: each new one is vouched for by the old."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.audit.signing import create_signing_key, load_signer, rotate_key
from services.audit.verification import VerificationFailed, endorsed_key, read_public_key
from services.audit.verifying import verify
from services.shared.clock import SystemClock
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
