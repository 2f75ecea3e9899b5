"""The gallery on a Milvus server: exact (FLAT) by default, a partition a watchlist, for more than one machine.

Tested on Milvus 2.3.5; it keeps to calls that newer servers document too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from services.search.adapters import milvus_answers as answers
from services.search.adapters import milvus_schema as schema
from services.search.adapters.milvus_calls import MilvusCalls, seeing
from services.search.adapters.milvus_index import MilvusIndex
from services.search.adapters.milvus_listing import MilvusListing
from services.search.ports import GalleryAnswer, GalleryHit, PutOutcome, ReferenceRecord, SearchScope
from services.search.settings import GallerySettings
from services.shared.biometric import Vector
from services.shared.errors import ConfigurationError, DependencyUnavailable, GalleryIncomplete, ModelMismatch

_OPEN_TIMEOUT_S = 60.0  # a server that has just started loads its collection
_WRITE_TIMEOUT_S = 20.0
# Rows and ids of one call: a few MB, far below the server's limit of 64 MB, and a filter that it parses in a few ms.
_ROWS = 4000
_IDS = 1000
_MAX_LIMIT = 16_384  # the server's limit of one search
_TRIES = 4
_COUNTS_FOR_S = 1.0

# How far behind the newest writes of other processes a search may be after Milvus was restarted and is catching up.
_STALE_MS = 5000
_LOGICAL_BITS = 18  # of Milvus's hybrid timestamps, below the milliseconds

Count = Mapping[tuple[str, str], int]


class MilvusGalleryStore(MilvusListing, MilvusIndex):
    """GalleryStore on Milvus.

    **Visible to the next search.** A write returns after Milvus serves it: having written, `put` and `withdraw` take
    the server's time and read their rows back with the guarantee to see everything up to it. So no search has to wait
    for a write, whoever made it, as long as each shard has one replica. The wait is the server's tick
    (proxy.timeTickInterval): with its default of 200 ms up to 0.6 s, with the 20 ms that deploy/ sets about 30 ms.

    **Every read names the time that it must see**: this process's last write, and the server's time five seconds ago.
    Without it Milvus, just restarted and still reading its log, answers with an empty list.

    **Order.** Where scores are too close for the server's float32 to order them, the vectors are fetched and the scores
    summed in float64, as in the embedded gallery: the same references give the same list on every adapter. They are
    fetched by a query of their own, because Milvus 2.3 puts vectors that a search asks for together with the hits by
    position after looking them up anew, and mixes references up when some are deleted in between.

    **Withdrawals** are remembered in a collection of their own. `put` looks there before it writes and again after, and
    `withdraw` writes there before it removes, so that of two processes one always sees the other. For two versions of
    one reference written at the same time by two processes the server's order decides: the ledger sends one after the
    other.

    **Whole or refused.** Only the partitions of the scopes are named in a query. Hits are checked (a cosine, a
    permitted watchlist and owner), and a query that returns fewer than it could is compared with the count.
    """

    def __init__(self, settings: GallerySettings) -> None:
        self._alias, self._index = settings.collection, settings.index
        self._tombstones = schema.tombstones_name(settings.collection)
        self._calls = MilvusCalls(settings.uri, settings.token, settings.database, settings.timeout_s)
        self._writing = Lock()
        self._seen = 0  # everything up to this server time is served
        self._ahead_ms = 0.0  # the server's clock less our monotonic one
        self._is_unsure = self._was_unsure = False  # a write failed and may still take effect
        self._version = ""
        self._model_id: str | None = None
        self._dimension = 0
        self._watchlists: frozenset[str] = frozenset()  # whose partition has been seen
        self._partitions: frozenset[str] = frozenset()
        self._owners: dict[str, set[str]] = defaultdict(set)
        self._counted: tuple[float, Count] | None = None

    @property
    def name(self) -> str:
        return " ".join(part for part in ("milvus", self._version, self._index.kind) if part)

    @property
    def needs_rebuild(self) -> bool:
        return False

    def open(self, model_id: str, dimension: int) -> None:
        if dimension < 1:
            raise ConfigurationError(
                f"A template cannot have {dimension} values.", advice="Set the dimension that the model states."
            )
        with self._writing:
            self._version = str(self._open("get_server_version")).removeprefix("v")
            self._require_server_for(self._version)
            self._prepare_references(model_id, dimension)
            self._prepare_tombstones()
            self._partitions = frozenset(self._open("list_partitions", self._alias))
            seen = self._mark()
            for collection in (self._alias, self._tombstones):
                self._open("query", collection, output_fields=["count(*)"], **seeing(seen))
            self._seen = seen
            self._model_id, self._dimension = model_id, dimension
            self._counted = None

    def put(self, records: Sequence[ReferenceRecord], vectors: npt.NDArray[np.float32]) -> PutOutcome:
        with self._writing:
            self._require_open()
            answers.require_unit_rows(vectors, len(records), self._dimension)
            newest = answers.newest_places(records)
            before = self._before()
            held, withdrawn = self._held(newest, before), self._withdrawn(newest, before)
            wanted = [
                i for key, i in newest.items() if answers.is_news(records[i], held.get(key, ()), withdrawn.get(key))
            ]
            with self._sure():
                self._replace(records, vectors, wanted, held)
                put = self._confirm([records[i] for i in wanted])
            return PutOutcome(put=put, unchanged=len(records) - put)

    def withdraw(self, reference_ids: Sequence[str], versions: Sequence[int]) -> int:
        if len(reference_ids) != len(versions):
            raise ValueError(f"{len(reference_ids)} reference ids but {len(versions)} versions")
        newest: dict[str, int] = {}
        for reference_id, version in zip(reference_ids, versions, strict=True):
            newest[reference_id] = max(version, newest.get(reference_id, version))
        with self._writing:
            self._require_open()
            known = self._withdrawn(newest, self._before())
            with self._sure():
                self._bury({key: version for key, version in newest.items() if known.get(key, -1) < version})
                held = self._held(newest, self._mark())
                gone = {key: rows for key, rows in held.items() if answers.newest_version(rows) <= newest[key]}
                self._erase(row for rows in gone.values() for row in rows)
                self._require_gone(gone)
            return len(gone)

    def search(self, probe: Vector, scopes: Sequence[SearchScope], limit: int) -> GalleryAnswer:
        if self._model_id is None:
            raise GalleryIncomplete("The gallery is not open yet.", advice="Wait until the service is ready.")
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        answers.require_unit_rows(probe[None, :], 1, self._dimension)
        groups = list(self._groups(scopes))
        for _ in range(_TRIES):
            hits: list[GalleryHit] = []
            compared = 0
            for owners, watchlists in groups:
                found, count = self._search_group(probe, watchlists, owners, limit)
                hits += found
                compared += count
            ranked = self._ordered(answers.once_each(hits), probe, limit)
            if ranked is not None:
                return GalleryAnswer(hits=ranked[:limit], compared=compared)
        raise GalleryIncomplete("The gallery changes faster than it can be read.", advice="Try again.")

    def counts(self) -> Count:
        if self._model_id is None:
            return {}
        counted = self._counted
        if counted is not None and monotonic() - counted[0] < _COUNTS_FOR_S:
            return counted[1]
        started_s = monotonic()
        counts = {
            (watchlist, owner): count
            for watchlist in sorted(self._known_watchlists())
            for owner, count in self._counts_by_owner(watchlist).items()
            if count
        }
        self._counted = (started_s, counts)
        return counts

    def close(self) -> None:
        self._model_id = None
        self._calls.close()

    # --- opening -------------------------------------------------------------------------------------------------

    def _open(self, method: str, *arguments: Any, **named: Any) -> Any:
        return self._calls.ask(method, *arguments, timeout_s=_OPEN_TIMEOUT_S, **named)

    def _prepare_references(self, model_id: str, dimension: int) -> None:
        """The alias points to this model's collection, which is loaded; it is made when nothing or nobody is there."""
        wanted = schema.collection_name(self._alias, model_id)
        present = self._aliased()
        if present is not None and present["collection_name"] != wanted:
            self._require_empty(present)
        if not self._open("has_collection", wanted):
            fields = schema.reference_schema(self._calls.library, model_id, dimension)
            self._create(wanted, fields, self._index_parameters())
        if present is None:
            self._open("create_alias", wanted, self._alias)
        elif present["collection_name"] != wanted:
            self._open("alter_alias", wanted, self._alias)
        described = self._open("describe_collection", self._alias)
        held = next(field["params"]["dim"] for field in described["fields"] if field["name"] == schema.VECTOR)
        # The collection's name is the model's. Milvus Lite keeps no description.
        if int(held) != dimension or described["description"] not in (model_id, ""):
            raise answers.other_model(described["description"], int(held), model_id, dimension)
        self._prepare_index()
        self._open("load_collection", self._alias)

    def _prepare_tombstones(self) -> None:
        if not self._open("has_collection", self._tombstones):
            library = self._calls.library
            self._create(self._tombstones, schema.tombstone_schema(library), schema.flat_index(library))
        self._open("load_collection", self._tombstones)

    def _create(self, name: str, fields: Any, index: Any) -> None:
        # One shard: read-your-writes waits for every shard's tick, and a gallery of millions fits one.
        try:
            self._open("create_collection", name, schema=fields, index_params=index, num_shards=1)
        except GalleryIncomplete:
            if not self._open("has_collection", name):  # else another process was first
                raise

    def _aliased(self) -> Any:
        try:
            return self._open("describe_collection", self._alias)
        except GalleryIncomplete as error:
            if "not found" in error.detail or "exist" in error.detail:
                return None
            raise

    def _require_empty(self, other: Mapping[str, Any]) -> None:
        self._open("load_collection", other["collection_name"])
        [row] = self._open("query", other["collection_name"], output_fields=["count(*)"], **seeing(self._mark()))
        if row["count(*)"]:
            raise ModelMismatch(
                f"The gallery {self._alias} holds templates of {other['description']}.",
                advice="Name another collection for the new model, fill it from the ledger, then switch the setting.",
            )

    def _require_open(self) -> None:
        if self._model_id is None:
            raise ConfigurationError("The gallery is not open.", advice="Open it for a model before filling it.")

    @contextmanager
    def _sure(self) -> Iterator[None]:
        """After a write that failed half-way the next one looks at everything that has taken effect by then."""
        self._was_unsure, self._is_unsure = self._is_unsure, True
        yield
        self._was_unsure = self._is_unsure = False

    # --- writing -------------------------------------------------------------------------------------------------

    def _ask_write(self, method: str, *arguments: Any, **named: Any) -> Any:
        return self._calls.ask(method, *arguments, timeout_s=_WRITE_TIMEOUT_S, **named)

    def _mark(self) -> int:
        """The server's time now."""
        mark = self._calls.timestamp()
        self._ahead_ms = (mark >> _LOGICAL_BITS) - monotonic() * 1000
        return mark

    def _guarantee(self) -> int:
        """What every read must see; a running server has seen it already."""
        server_ms = int(self._ahead_ms + monotonic() * 1000)
        return max(self._seen, (server_ms - _STALE_MS) << _LOGICAL_BITS)

    def _before(self) -> int:
        """What to look at before a write: after a failed one, everything that took effect since."""
        return self._mark() if self._is_unsure else self._guarantee()

    def _held(self, ids: Iterable[str], seen: int) -> dict[str, list[answers.HeldRow]]:
        """The rows that are served of these references: one each, but for a moment while one replaces another."""
        found: dict[str, list[answers.HeldRow]] = defaultdict(list)
        for row in self._rows(self._alias, ids, ["reference_id", "watchlist_id", "version"], seen):
            found[row["reference_id"]].append(answers.HeldRow(row[schema.ROW_ID], row["watchlist_id"], row["version"]))
        return found

    def _withdrawn(self, ids: Iterable[str], seen: int) -> dict[str, int]:
        """The newest withdrawal of each of these references that has any."""
        found: dict[str, int] = {}
        for row in self._rows(self._tombstones, ids, ["reference_id", "version"], seen):
            found[row["reference_id"]] = max(row["version"], found.get(row["reference_id"], -1))
        return found

    def _rows(self, collection: str, ids: Iterable[str], fields: Sequence[str], seen: int) -> Iterator[Any]:
        for some in answers.chunks(list(ids), _IDS):
            condition = schema.is_one_of("reference_id", some)
            yield from self._ask_write(
                "query", collection, filter=condition, output_fields=list(fields), **seeing(seen)
            )

    def _replace(
        self,
        records: Sequence[ReferenceRecord],
        vectors: npt.NDArray[np.float32],
        wanted: Sequence[int],
        held: Mapping[str, Sequence[answers.HeldRow]],
    ) -> None:
        """Insert the wanted records and remove every older row of any of them."""
        by_watchlist: dict[str, list[int]] = defaultdict(list)
        for i in wanted:
            by_watchlist[records[i].watchlist_id].append(i)
        home = {records[i].reference_id: records[i].watchlist_id for i in wanted}
        old = [
            (key, row)
            for key, rows in held.items()
            for row in rows
            if key in home or row.version < answers.newest_version(rows)
        ]
        # First away from a watchlist that it leaves: after a crash in between it is missing, and never where it may not
        # be. Within one watchlist the other way round, so that no search misses it.
        self._erase(row for key, row in old if row.watchlist_id != home.get(key))
        for watchlist, chosen in by_watchlist.items():
            self._ensure_partition(watchlist)
            for some in answers.chunks(chosen, _ROWS):
                rows = [schema.row_of(records[i], vectors[i]) for i in some]
                self._insert(self._alias, rows, partition_name=schema.partition_name(watchlist))
        self._erase(row for key, row in old if row.watchlist_id == home.get(key))

    def _insert(self, collection: str, rows: list[dict[str, Any]], **named: Any) -> None:
        # A row that a failed write may still bring must not stand there twice.
        self._ask_write("upsert" if self._was_unsure else "insert", collection, rows, **named)
        self._counted = None

    def _confirm(self, written: Sequence[ReferenceRecord]) -> int:
        """Wait until the rows are served; take those away again that were withdrawn meanwhile. How many stay."""
        if not written:
            return 0
        versions = {record.reference_id: record.version for record in written}
        seen = self._mark()
        held, withdrawn = self._held(versions, seen), self._withdrawn(versions, seen)
        late = {key: held[key] for key in versions if withdrawn.get(key, -1) >= versions[key]}
        if late:
            self._erase(row for rows in late.values() for row in rows)
            self._require_gone(late)
        stays = versions.keys() - late.keys()
        if any([row.version for row in held.get(key, ())] != [versions[key]] for key in stays):
            raise DependencyUnavailable("Milvus does not serve what was written.", advice="Put it again.")
        self._seen = max(self._seen, seen)
        return len(stays)

    def _erase(self, rows: Iterable[answers.HeldRow]) -> None:
        by_watchlist: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            by_watchlist[row.watchlist_id].append(row.row_id)
        for watchlist, ids in by_watchlist.items():
            for some in answers.chunks(ids, _IDS):
                self._ask_write("delete", self._alias, ids=some, partition_name=schema.partition_name(watchlist))
        self._counted = None

    def _require_gone(self, removed: Mapping[str, Sequence[answers.HeldRow]]) -> None:
        seen = self._mark()
        served = {row for rows in self._held(removed, seen).values() for row in rows}
        if any(row in served for rows in removed.values() for row in rows):
            raise DependencyUnavailable("Milvus still serves what was removed.", advice="Try again.")
        self._seen = max(self._seen, seen)

    def _bury(self, versions: Mapping[str, int]) -> None:
        """Remember withdrawals, durably, before anything is removed."""
        for some in answers.chunks(list(versions.items()), _ROWS):
            self._insert(self._tombstones, [schema.tombstone_of(*each) for each in some])

    def _ensure_partition(self, watchlist: str) -> None:
        name = schema.partition_name(watchlist)
        if name in self._partitions:
            return
        if not self._ask_write("has_partition", self._alias, name):
            self._ask_write("create_partition", self._alias, name)
        self._partitions |= {name}

    # --- reading -------------------------------------------------------------------------------------------------

    def _groups(self, scopes: Sequence[SearchScope]) -> Iterator[tuple[frozenset[str], list[str]]]:
        """Scopes with the same owners, as one query: the owners and the watchlists that have a partition."""
        owners_of = answers.owners_by_watchlist(scopes)
        self._look_for_partitions(owners_of)
        groups: dict[frozenset[str], list[str]] = defaultdict(list)
        for watchlist, owners in owners_of.items():
            if schema.partition_name(watchlist) in self._partitions:
                groups[owners].append(watchlist)
        yield from groups.items()

    def _look_for_partitions(self, watchlists: Iterable[str]) -> None:
        """Another process may have made one. What was seen once is never forgotten: if it is gone, searches fail."""
        if any(schema.partition_name(watchlist) not in self._partitions for watchlist in watchlists):
            self._partitions |= frozenset(self._calls.ask("list_partitions", self._alias))

    def _search_group(
        self, probe: Vector, watchlists: Sequence[str], owners: frozenset[str], limit: int
    ) -> tuple[list[GalleryHit], int]:
        """At least the `limit` best and all that are as good as the last of them; and how many were compared."""
        asked = min(limit + 1, _MAX_LIMIT)
        for _ in range(_TRIES):
            rows, count = self._hits_and_count(probe, watchlists, owners, asked)
            hits = sorted(answers.once_each(rows), key=answers.rank_key)
            if len(rows) < asked:
                # All there is. What was inserted meanwhile may be in one and not yet in the other.
                if len(rows) >= count:
                    return hits, len(hits)
            elif asked == _MAX_LIMIT or (len(hits) > limit and hits[limit - 1].score - hits[-1].score > answers.TIE):
                return hits, max(count, len(hits))
            else:
                asked = min(4 * asked, _MAX_LIMIT)
        structlog.get_logger().error("gallery_answer_short", hits=len(rows), count=count, asked=asked)
        raise GalleryIncomplete(
            f"Milvus returned {len(rows)} references where {min(count, asked)} must come back.",
            advice="Try again; operators: reconcile the gallery with the ledger.",
        )

    def _hits_and_count(
        self, probe: Vector, watchlists: Sequence[str], owners: frozenset[str], asked: int
    ) -> tuple[list[GalleryHit], int]:
        where = {
            "filter": schema.is_one_of("owner", owners),
            "partition_names": [schema.partition_name(watchlist) for watchlist in watchlists],
            **seeing(self._guarantee()),
        }
        nearest = {
            "data": [probe],
            "anns_field": schema.VECTOR,
            "limit": asked,
            "output_fields": list(schema.FIELDS),
            "search_params": self._search_parameters(asked),
            **where,
        }
        found, counted = self._calls.ask_all(
            [
                ("search", (self._alias,), nearest),
                ("query", (self._alias,), {"output_fields": ["count(*)"], **where}),
            ]
        )
        return answers.checked_hits(found, frozenset(watchlists), owners), int(counted[0]["count(*)"])

    def _ordered(self, hits: list[GalleryHit], probe: Vector, limit: int) -> list[GalleryHit] | None:
        """Best first, ties by reference_id; None when a reference went away before its score could be summed."""
        hits.sort(key=answers.rank_key)
        close = answers.too_close_to_order(hits, limit)
        if not close:
            return hits
        vectors = {
            row[schema.ROW_ID]: row[schema.VECTOR]
            for some in answers.chunks(sorted(close), _IDS)
            for row in self._calls.ask(
                "query",
                self._alias,
                filter=schema.is_one_of(schema.ROW_ID, some),
                output_fields=[schema.VECTOR],
                **seeing(self._guarantee()),
            )
        }
        if vectors.keys() != close:
            return None
        exact = [
            GalleryHit(hit.reference, answers.cosine_of(vectors[answers.row_id_of(hit)], probe))
            if answers.row_id_of(hit) in close
            else hit
            for hit in hits
        ]
        return sorted(exact, key=answers.rank_key)

    def _known_watchlists(self) -> frozenset[str]:
        """Every watchlist with a partition; its name is read from one of its references."""
        self._partitions |= frozenset(self._calls.ask("list_partitions", self._alias))
        named = {schema.partition_name(watchlist) for watchlist in self._watchlists}
        for partition in sorted(self._partitions - named - {"_default"}):
            rows = self._calls.ask(
                "query",
                self._alias,
                filter="",
                limit=1,
                output_fields=["watchlist_id"],
                partition_names=[partition],
                **seeing(self._guarantee()),
            )
            self._watchlists |= {row["watchlist_id"] for row in rows}
        return self._watchlists

    def _counts_by_owner(self, watchlist: str) -> dict[str, int]:
        """Counts are asked for owner by owner: this server cannot group. New owners are found by excluding known."""
        owners = self._owners[watchlist]
        while True:
            unknown = self._query(watchlist, schema.is_none_of("owner", sorted(owners)), ["owner"], limit=1)
            if not unknown:
                break
            owners |= {row["owner"] for row in unknown}
        return {
            owner: int(self._query(watchlist, schema.is_one_of("owner", [owner]), ["count(*)"])[0]["count(*)"])
            for owner in sorted(owners)
        }

    def _query(self, watchlist: str, condition: str, fields: Sequence[str], **named: Any) -> Any:
        return self._calls.ask(
            "query",
            self._alias,
            filter=condition,
            output_fields=list(fields),
            partition_names=[schema.partition_name(watchlist)],
            **seeing(self._guarantee()),
            **named,
        )
