"""A key for every image. Whoever destroys the key has erased the image and its template, in every copy and backup.

The table stands apart from the images and from the ledger, and is backed up apart from both, if at all. Each key is
wrapped by a master key that stands in a file of its own. After an erasure the master key is changed: a copy of the
table from before, which still has the erased key, opens with nothing that exists.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.dialects import postgresql, sqlite

from services.shared.adapters.master_key import KEY_BYTES, MasterKey, MasterKeyFile
from services.shared.errors import ConfigurationError, DependencyUnavailable, IntegrityError

metadata = sa.MetaData()

image_keys = sa.Table(
    "image_keys",
    metadata,
    # SHA-256 of the image as it was before it was sealed.
    sa.Column("sha256", sa.String(64), primary_key=True),
    # Under which name the sealed bytes stand in the image store; empty where there are none (yet).
    sa.Column("sealed_sha256", sa.String(64), nullable=False),
    # Empty once destroyed, until the sealed bytes are gone too and the row with them.
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sa.Column("master_id", sa.String(36), nullable=False),
)

# Tables from before have none of it: it is made at the start, beside the master key.
_by_sealed_name = sa.Index("ix_image_keys_sealed", image_keys.c.sealed_sha256)

# One row: which master key wraps.
master_in_use = sa.Table(
    "image_key_master",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("master_id", sa.String(36), nullable=False),
)

_IN_ONE_QUERY = 4096
# Made once: every image that is stored or read asks, and putting a statement together takes longer than running it.
_KEY_OF_ONE = sa.select(image_keys).where(image_keys.c.sha256 == sa.bindparam("sha256"))
_KEYS_OF_SOME = sa.select(image_keys).where(image_keys.c.sha256.in_(sa.bindparam("sha256s", expanding=True)))
# Any number that no other advisory lock of the same database has.
_TABLES_LOCK = 0x4C494B4B


@dataclass(frozen=True, slots=True)
class ImageKey:
    """`sealed_sha256` is empty where no sealed bytes are stored."""

    sha256: str
    sealed_sha256: str
    key: bytes


class _MasterGone(DependencyUnavailable):
    """A row is wrapped with a master key that is in no file any more."""


class ImageKeys:
    """The key table. Safe for many threads; several processes may share it.

    Keys are made by `ensure`, read by `find`, destroyed for good by `destroy`. Every change is durable when it returns.
    All raise DependencyUnavailable when the table cannot be used.
    """

    def __init__(self, engine: sa.Engine, master: MasterKeyFile) -> None:
        """Raises ConfigurationError when the master key does not belong to the table."""
        self._engine = engine
        self._file = master
        self._lock = Lock()
        self._joint = _Joint()
        with self._translated():
            _make_tables(engine)
            self._masters = self._open_master()

    @property
    def engine(self) -> sa.Engine:
        """For what has to stand beside the keys, apart from the ledger."""
        return self._engine

    # --- keys

    def find(self, sha256s: Sequence[str]) -> Mapping[str, ImageKey]:
        """The keys of these images. What has none, or had its key destroyed, is left out."""
        try:
            return self._find(sha256s)
        except _MasterGone:
            # The master key was changed between reading a row and opening it; the row is another now.
            return self._find(sha256s)

    def _find(self, sha256s: Sequence[str]) -> Mapping[str, ImageKey]:
        found: dict[str, ImageKey] = {}
        for start in range(0, len(sha256s), _IN_ONE_QUERY):
            with self._translated(), self._engine.connect() as connection:
                rows = _rows_of(connection, sha256s[start : start + _IN_ONE_QUERY])
            found.update((row.sha256, self._opened(row)) for row in rows if row.wrapped)
        return found

    def ensure(self, sealed: Mapping[str, str], keys: Mapping[str, bytes] | None = None) -> Mapping[str, ImageKey]:
        """A key for every image of `sealed`, which maps its SHA-256 to the name of its sealed bytes ("" for none yet).

        Where there is a key already it stays, whoever was first, and `keys` (those that the caller sealed with) do not
        count; the answer says what stands.
        """
        wanted = {sha256: (name, (keys or {}).get(sha256) or os.urandom(KEY_BYTES)) for sha256, name in sealed.items()}
        with self._translated():
            stands = self._joint.run(wanted, self._insert)
        return {sha256: stands[sha256] for sha256 in sealed}

    def point(self, sha256: str, sealed_sha256: str) -> None:
        """The sealed bytes of an image stand under this name now."""
        query = sa.update(image_keys).where(image_keys.c.sha256 == sha256).values(sealed_sha256=sealed_sha256)
        with self._translated(), self._engine.begin() as connection:
            connection.execute(query)

    def sealed_as(self, sealed_sha256s: Sequence[str]) -> Mapping[str, str]:
        """Of these names of sealed bytes, whose image each is, by name; those that no key points to are left out."""
        found: dict[str, str] = {}
        for start in range(0, len(sealed_sha256s), _IN_ONE_QUERY):
            some = sealed_sha256s[start : start + _IN_ONE_QUERY]
            query = sa.select(image_keys.c.sealed_sha256, image_keys.c.sha256).where(
                image_keys.c.sealed_sha256.in_(some)
            )
            with self._translated(), self._engine.connect() as connection:
                found.update((row.sealed_sha256, row.sha256) for row in connection.execute(query))
        return found

    def count(self) -> int:
        with self._translated(), self._engine.connect() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(image_keys)) or 0)

    # --- erasure

    def destroy(self, sha256: str) -> str:
        """Overwrite an image's key; the name of its sealed bytes, "" for none. Call `forget` once those are gone."""
        with self._translated(), self._engine.begin() as connection:
            _overwrite_deleted(connection)
            connection.execute(sa.update(image_keys).where(image_keys.c.sha256 == sha256).values(wrapped=b""))
            query = sa.select(image_keys.c.sealed_sha256).where(image_keys.c.sha256 == sha256)
            return str(connection.scalar(query) or "")

    def forget(self, sha256: str) -> None:
        """Remove the row of a destroyed key."""
        query = sa.delete(image_keys).where(image_keys.c.sha256 == sha256, image_keys.c.wrapped == b"")
        with self._translated(), self._engine.begin() as connection:
            _overwrite_deleted(connection)
            connection.execute(query)

    def change_master(self) -> str:
        """Wrap every key anew under a new master key, destroy the old one, leave no old page behind; the new one's id.

        A crash at any point leaves both master keys in the file, or the right one alone. Processes that change it at
        the same time take turns: whoever holds the table's lock writes the file.
        """
        with self._lock, self._translated():
            with self._engine.begin() as connection:
                _overwrite_deleted(connection)
                _one_at_a_time(connection)
                old, new = self._file.read()[_in_use(connection)], MasterKey.new()
                self._file.write(old, new)
                self._masters = {old.key_id: old, new.key_id: new}
                connection.execute(sa.update(master_in_use).values(master_id=new.key_id))
                rows = connection.execute(sa.select(image_keys).where(image_keys.c.wrapped != b"")).all()
                renewed = [
                    {"of": row.sha256, "anew": new.wrap(row.sha256, self._unwrap(row)), "by": new.key_id}
                    for row in rows
                ]
                if renewed:
                    statement = (
                        sa.update(image_keys)
                        .where(image_keys.c.sha256 == sa.bindparam("of"))
                        .values(wrapped=sa.bindparam("anew"), master_id=sa.bindparam("by"))
                    )
                    connection.execute(statement, renewed)
            with self._engine.begin() as connection:
                _one_at_a_time(connection)
                in_use = self._file.read()[_in_use(connection)]
                self._file.write(in_use)
                self._masters = {in_use.key_id: in_use}
            empty_write_ahead_log(self._engine)
            return new.key_id

    def close(self) -> None:
        self._engine.dispose()

    # --- inside

    def _open_master(self) -> dict[str, MasterKey]:
        with self._engine.begin() as connection:
            # Several processes of a service may start on an empty table at once: one of them makes the first key.
            _one_at_a_time(connection)
            connection.execute(sa.schema.CreateIndex(_by_sealed_name, if_not_exists=True))
            held = self._file.read()
            in_use = connection.scalar(sa.select(master_in_use.c.master_id))
            if in_use is None:
                if not held:
                    key = MasterKey.new()
                    self._file.write(key)
                    held = {key.key_id: key}
                in_use = next(reversed(held))
                connection.execute(_insert_ignoring(connection, master_in_use).values(id=1, master_id=in_use))
                in_use = str(connection.scalar(sa.select(master_in_use.c.master_id)))
        if in_use not in held:
            raise ConfigurationError(
                "The master key in the file is not the one that the image keys are wrapped with.",
                advice="Put table and master key of the same day together; an older copy of one opens nothing.",
            )
        if len(held) > 1:  # a change of the master key was broken off
            held = {in_use: held[in_use]}
            self._file.write(held[in_use])
        return held

    def _opened(self, row: sa.Row[Any]) -> ImageKey:
        return ImageKey(row.sha256, row.sealed_sha256, self._unwrap(row))

    def _unwrap(self, row: sa.Row[Any]) -> bytes:
        master = self._masters.get(row.master_id)
        if master is None:
            self._masters = self._file.read()  # another process changed it
            master = self._masters.get(row.master_id)
        if master is None:
            raise _MasterGone(
                "An image's key is wrapped with a master key that is not there.",
                advice="Operators: put the current master key file back.",
            )
        try:
            return master.unwrap(row.sha256, row.wrapped)
        except InvalidTag as error:
            raise IntegrityError(
                f"The key of the image {row.sha256} is not what it was.",
                advice="Operators: restore the key table; without the key the image cannot be opened.",
            ) from error

    def _insert(self, wanted: Mapping[str, tuple[str, bytes]]) -> Mapping[str, ImageKey]:
        """What stands afterwards. Wrapped by the master key in use, which no other process changes before this is
        committed."""
        with self._engine.begin() as connection:
            query = sa.select(master_in_use.c.master_id).with_for_update(read=True)
            connection.execute(sa.update(master_in_use).where(sa.false()).values(master_id=""))  # SQLite: take the lock
            master_id = str(connection.scalar(query))
            master = self._masters.get(master_id)
            if master is None:
                self._masters = self._file.read()
                master = self._masters[master_id]
            rows = [
                {"sha256": sha256, "sealed_sha256": name, "wrapped": master.wrap(sha256, key), "master_id": master_id}
                for sha256, (name, key) in wanted.items()
            ]
            destroyed = sa.and_(image_keys.c.sha256.in_(list(wanted)), image_keys.c.wrapped == b"")
            connection.execute(sa.delete(image_keys).where(destroyed))
            connection.execute(_insert_ignoring(connection, image_keys), rows)
            return {row.sha256: self._opened(row) for row in _rows_of(connection, list(wanted))}

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.SQLAlchemyError, OSError, KeyError) as error:
            raise DependencyUnavailable(
                f"The image keys cannot be used ({type(error).__name__}).",
                advice="Try again; operators: check the key table's disk or server and the master key file.",
            ) from error


class SealedBytes:
    """AES-256-GCM of content under a key, bound to the name of what it is."""

    MARK = b"LKS1"

    @classmethod
    def seal(cls, key: bytes, name: str, content: bytes) -> bytes:
        nonce = os.urandom(12)
        return cls.MARK + nonce + AESGCM(key).encrypt(nonce, content, name.encode())

    @classmethod
    def open(cls, key: bytes, name: str, sealed: bytes) -> bytes:
        """Raises IntegrityError when it is not what was sealed."""
        try:
            return AESGCM(key).decrypt(sealed[4:16], sealed[16:], name.encode())
        except InvalidTag as error:
            raise IntegrityError(
                f"The sealed bytes of {name} do not open with their key.",
                advice="Operators: restore them from the backup and check the disk.",
            ) from error


def empty_write_ahead_log(engine: sa.Engine) -> bool:
    """Leave no earlier page of a SQLite store in its write-ahead log; whether that could be done at once."""
    if engine.dialect.name != "sqlite":
        return True
    with engine.connect() as connection:
        busy, _, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
    return not busy


def _rows_of(connection: sa.Connection, sha256s: Sequence[str]) -> Sequence[sa.Row[Any]]:
    if len(sha256s) == 1:
        return connection.execute(_KEY_OF_ONE, {"sha256": sha256s[0]}).all()
    return connection.execute(_KEYS_OF_SOME, {"sha256s": list(sha256s)}).all()


def _in_use(connection: sa.Connection) -> str:
    return str(connection.scalar(sa.select(master_in_use.c.master_id)))


def _make_tables(engine: sa.Engine) -> None:
    """Those that are not there. Replicas that start at once on an empty server take turns: of two that make the same
    table PostgreSQL fails the second."""
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_TABLES_LOCK)))
        metadata.create_all(connection)


def _one_at_a_time(connection: sa.Connection) -> None:
    """Until the transaction ends."""
    if connection.dialect.name == "sqlite":
        connection.execute(sa.update(master_in_use).where(sa.false()).values(master_id=""))  # takes the write lock
    else:
        connection.exec_driver_sql("LOCK TABLE image_key_master IN SHARE ROW EXCLUSIVE MODE")


def _overwrite_deleted(connection: sa.Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")


def _insert_ignoring(connection: sa.Connection, table: sa.Table) -> Any:
    module = postgresql if connection.dialect.name == "postgresql" else sqlite
    return module.insert(table).on_conflict_do_nothing()


_Insert = Callable[[Mapping[str, tuple[str, bytes]]], Mapping[str, ImageKey]]


class _Ticket:
    """One caller's wish and what became of it."""

    def __init__(self, wanted: Mapping[str, tuple[str, bytes]]) -> None:
        self.wanted = wanted
        self.stands: Mapping[str, ImageKey] | None = None
        self.error: Exception | None = None


class _Joint:
    """Callers that wait at the same time share one transaction, and one flush of the disk."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._committing = Lock()
        self._queue: list[_Ticket] = []

    def run(self, wanted: Mapping[str, tuple[str, bytes]], insert: _Insert) -> Mapping[str, ImageKey]:
        """What stands once these are committed, by this thread or another; it may have more than was wanted. Raises
        what the commit raised."""
        ticket = _Ticket(wanted)
        with self._lock:
            self._queue.append(ticket)
        with self._committing:
            if ticket.stands is None and ticket.error is None:
                self._commit_all(insert)
        if ticket.error is not None:
            raise ticket.error
        return ticket.stands or {}

    def _commit_all(self, insert: _Insert) -> None:
        with self._lock:
            tickets, self._queue = self._queue, []
        together: dict[str, tuple[str, bytes]] = {}
        for ticket in tickets:
            for name, value in ticket.wanted.items():
                together.setdefault(name, value)
        try:
            stands = insert(together)
        except Exception as error:  # noqa: BLE001 - handed to every caller that it belongs to
            for ticket in tickets:
                ticket.error = error
        else:
            for ticket in tickets:
                ticket.stands = stands
