"""What happens before the log takes its first entry after a start: nothing is appended to a log that is not whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.audit.appending import next_entry
from services.audit.entries import Statement
from services.audit.merkle import frontier_of, hashes_of, nodes_of
from services.audit.ports import LogStore, PublishedKey, Witness
from services.audit.signing import Signer, create_signing_key, endorsement_path, load_signer
from services.audit.verification import (
    KEY_ACTIVITY,
    Checkpoint,
    Frontier,
    VerificationFailed,
    check_signature,
    endorsed_key,
    leaf_hash,
    parse_entry,
    read_public_key,
)
from services.shared.clock import Clock, rfc3339
from services.shared.errors import ConfigurationError, DependencyUnavailable, IntegrityError
from services.shared.ids import new_id

_MEND = (
    "Keep the store as it is for whoever investigates. Restore the newest copy of the store that is whole, or begin a "
    "new log: a new store and a new witness folder. See docs/audit.md."
)


@dataclass(frozen=True, slots=True)
class OpenedLog:
    log_id: str
    signer: Signer
    frontier: Frontier
    newest: Checkpoint


def open_log(store: LogStore, witness: Witness, key_path: Path, clock: Clock) -> OpenedLog:
    """Open, check and prepare a log:

    1. the store is brought up to date and names its log;
    2. the signing key is there, and it is not one that another took the place of; only a log without any key gets a
       new one;
    3. the store holds what its own newest checkpoint signs;
    4. the store holds what the newest checkpoint at the witness signs, if the witness can be reached;
    5. no entry is missing, and those behind the checkpoint hash to what is kept beside them (that all the others do
       is for `likeness audit verify`: a start does not read the whole log);
    6. a key that was not used before is published, in the log itself where it replaces another;
    7. a log that has no checkpoint gets one.

    Raises ConfigurationError (2 to 5), AuditUnavailable.
    """
    try:
        return _open_log(store, witness, key_path, clock)
    except IntegrityError as error:
        raise ConfigurationError(error.detail, advice=_MEND) from error


def _open_log(store: LogStore, witness: Witness, key_path: Path, clock: Clock) -> OpenedLog:
    log_id = store.open(new_id(), rfc3339(clock.now()))  # 1
    keys = store.published_keys()
    signer = _signer(key_path, keys)  # 2
    _require_newest(key_path, signer, keys)  # 2
    newest = store.newest_checkpoint()
    if newest is not None:
        check_agrees(store, log_id, newest, "its own newest checkpoint")  # 3
    _check_witness(store, log_id, witness)  # 4
    _check_tail(store, newest.tree_size if newest else 0)  # 5
    if signer.key_id not in {key.key_id for key in keys}:
        _publish_key(store, signer, keys, clock, _endorsement(key_path, log_id, signer, keys))  # 6
    frontier = _load_frontier(store)
    if newest is None:
        newest = signer.sign(log_id, frontier.size, frontier.root(), clock.now())  # 7
        with store.writing() as transaction:
            transaction.add_checkpoint(newest)
    return OpenedLog(log_id, signer, frontier, newest)


def check_agrees(store: LogStore, log_id: str, head: Checkpoint, name: str) -> None:
    """ConfigurationError unless the store's first `tree_size` entries are those that the checkpoint signs."""
    where = f"The audit store does not agree with {name} of {head.created_at} over {head.tree_size} entries"
    try:
        trusted = {key.key_id: read_public_key(key.public_key.encode()) for key in store.published_keys()}
        check_signature(head, log_id, trusted)
        size = store.size()
        if size < head.tree_size:
            raise ConfigurationError(f"{where}: it holds {size}, its tail was cut.", advice=_MEND)
        ranges = [(0, head.tree_size)]
        if hashes_of(ranges, store.node_hashes(nodes_of(ranges))) != [head.root_hash]:
            raise ConfigurationError(f"{where}: its Merkle root is another.", advice=_MEND)
    except (ValueError, IntegrityError) as error:
        raise ConfigurationError(f"{where}: {error}", advice=_MEND) from error


def _signer(path: Path, keys: Sequence[PublishedKey]) -> Signer:
    if not path.exists():
        if keys:
            raise ConfigurationError(
                f"the signing key {path} is missing, but the log has been signed before",
                advice="Restore the key. If it is lost, put a new Ed25519 key there; the log records the change.",
            )
        create_signing_key(path)
    return load_signer(path)


def _require_newest(path: Path, signer: Signer, keys: Sequence[PublishedKey]) -> None:
    """What a key signs after it was replaced no verifier accepts."""
    if signer.key_id in {key.key_id for key in keys[:-1]}:
        raise ConfigurationError(
            f"the signing key {path} was replaced: this log is signed by {keys[-1].key_id} since entry "
            f"{keys[-1].since_size - 1}",
            advice="Put that key back. If it is lost, put a new Ed25519 key there; the log records the change.",
        )


def _check_witness(store: LogStore, log_id: str, witness: Witness) -> None:
    try:
        witnessed = witness.newest()
    except DependencyUnavailable as error:
        # The comparison is made up for before the first checkpoint is copied.
        structlog.get_logger().warning("audit_witness_unavailable", detail=error.detail)
        return
    if witnessed is not None:
        check_agrees(store, log_id, witnessed, "the witnessed checkpoint")


def _check_tail(store: LogStore, start: int) -> None:
    missing = store.size() - store.count()
    if missing:
        raise ConfigurationError(f"The audit store lacks {missing} of its entries.", advice=_MEND)
    for position, entry in enumerate(store.scan(start, store.size()), start):
        try:
            facts = parse_entry(entry.canonical, position)
        except VerificationFailed as error:
            raise ConfigurationError(f"The audit store is damaged: {error.detail}.", advice=_MEND) from error
        if (
            entry.sequence != position
            or facts["sequence"] != str(position)
            or leaf_hash(entry.canonical) != entry.leaf_hash
        ):
            raise ConfigurationError(f"The audit store is damaged at entry {position}.", advice=_MEND)


def _load_frontier(store: LogStore) -> Frontier:
    size = store.size()
    return frontier_of(size, store.node_hashes(nodes_of([(0, size)])))


def _endorsement(key_path: Path, log_id: str, signer: Signer, keys: Sequence[PublishedKey]) -> Mapping[str, str]:
    """What the key before says of the new one, as the log records it; empty where it says nothing."""
    if not keys:
        return {}
    try:
        document = endorsement_path(key_path).read_text("utf-8").strip()
        known = {key.key_id: read_public_key(key.public_key.encode()) for key in keys}
        endorsed_key(document, signer.public_key_pem, log_id, known)
    except FileNotFoundError:
        problem = "there is none"
    except (OSError, ValueError, TypeError) as error:
        problem = str(error)
    else:
        return {"endorsement": document}
    structlog.get_logger().warning(
        "audit_key_not_endorsed", key_id=signer.key_id, detail=f"The new signing key has no endorsement: {problem}."
    )
    return {}


def _publish_key(
    store: LogStore, signer: Signer, keys: Sequence[PublishedKey], clock: Clock, endorsement: Mapping[str, str]
) -> None:
    moment = rfc3339(clock.now())
    frontier = _load_frontier(store)
    with store.writing() as transaction:
        if keys:
            statement = Statement(
                entry_id=new_id(),
                operation="ALTERATION",
                phase="DONE",
                activity=KEY_ACTIVITY,
                activity_id=signer.key_id,
                person_id="service:audit",
                service="audit",
                occurred_at=moment,
                details={"public_key": signer.public_key_pem, "replaces": keys[-1].key_id, **endorsement},
            )
            transaction.add_entries([next_entry(statement, frontier, moment)])
        transaction.add_key(PublishedKey(signer.key_id, signer.public_key_pem, frontier.size, moment))
