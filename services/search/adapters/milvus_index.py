"""The index of a Milvus gallery: which one, how it is built and searched, and the recall that was measured for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from services.search.adapters import milvus_schema as schema
from services.search.adapters.milvus_calls import MilvusCalls, seeing
from services.search.settings import EXACT_INDEXES, GalleryIndexSettings
from services.search.upkeep.index import GalleryIndex, IndexRecall
from services.shared.errors import ConfigurationError, DependencyUnavailable

_OPEN_TIMEOUT_S = 60.0
_BUILD_TIMEOUT_S = 600.0  # an index of a million references is built anew
_ROWS = 2000
_PROBES = 16  # of one call
# As far from its reference as another picture of the same person often is.
PROBE_COSINE = 0.7
_MEASURE_AT = 50  # the longest list that may be asked for
_SEED = 20_260_101  # the same directions each time: two measurements of one gallery differ by the index alone
_TIE = 1e-5  # float32 sums of another order

Rows = npt.NDArray[np.float32]


class _Part(NamedTuple):
    """A partition and its number of references."""

    name: str
    references: int


@dataclass
class _Nearest:
    """The best scores of each probe so far, one row a probe, best first."""

    probes: Rows
    scores: npt.NDArray[np.float32]

    @classmethod
    def of(cls, probes: Rows, at: int) -> _Nearest:
        return cls(probes, np.full((len(probes), at), -np.inf, np.float32))

    def see(self, vectors: Rows) -> None:
        both = np.concatenate([self.scores, self.probes @ vectors.T], axis=1)
        at = self.scores.shape[1]
        self.scores = -np.sort(-np.partition(both, both.shape[1] - at, axis=1)[:, -at:], axis=1)


class MilvusIndex(ABC):
    """The part of MilvusGalleryStore that knows the index."""

    _alias: str
    _calls: MilvusCalls
    _index: GalleryIndexSettings
    _recall: IndexRecall | None = None

    @abstractmethod
    def _guarantee(self) -> int:
        """The timestamp that an answer has to have seen."""

    @property
    def index(self) -> GalleryIndex:
        chosen = self._index
        return GalleryIndex(chosen.kind, chosen.kind in EXACT_INDEXES, chosen.build, chosen.search, self._recall)

    def measure_recall(self) -> None:
        """Compare the index with an exact search over the same references, watchlist by watchlist.

        What has been written is sealed first, because an index is built over sealed segments only; one that is still
        being built afterwards is measured as it is, and found out by the next measurement.
        """
        if self.index.is_exact:
            return
        self._calls.ask("flush", self._alias, timeout_s=_OPEN_TIMEOUT_S)
        parts = [part for part in self._parts() if part.references]
        total = sum(part.references for part in parts)
        if not total:
            return
        directions = np.random.default_rng(_SEED)
        shares: list[float] = []
        for part in parts:
            wanted = max(1, round(self._index.probes * part.references / total))
            shares += self._shares(part, wanted, directions)
        if shares:
            self._recall = IndexRecall.of(_MEASURE_AT, shares, PROBE_COSINE, total, datetime.now(UTC))

    def _shares(self, part: _Part, wanted: int, directions: np.random.Generator) -> list[float]:
        """Of each probe of one watchlist the share of its best references that the index returns."""
        probes = _turned(self._sample(part, wanted, directions), directions)
        at = min(_MEASURE_AT, part.references)
        nearest = _Nearest.of(probes, at)
        for vectors in self._vectors(part.name):
            nearest.see(vectors)
        found: list[float] = []
        for start in range(0, len(probes), _PROBES):
            answers = self._calls.ask(
                "search",
                self._alias,
                data=list(probes[start : start + _PROBES]),
                anns_field=schema.VECTOR,
                limit=at,
                search_params=self._search_parameters(at),
                partition_names=[part.name],
                timeout_s=_OPEN_TIMEOUT_S,
                **seeing(self._guarantee()),
            )
            worst = nearest.scores[start : start + _PROBES, -1]
            # Whatever scores as well as the last of the true ones is one of them: ties are not held against the index.
            found += [
                min(1.0, sum(float(hit["distance"]) >= floor - _TIE for hit in hits) / at)
                for hits, floor in zip(answers, worst, strict=True)
            ]
        return found

    def _sample(self, part: _Part, wanted: int, random: np.random.Generator) -> Rows:
        """References at places drawn beforehand, as the server lists them."""
        places = np.sort(random.choice(part.references, min(wanted, part.references), replace=False))
        chosen: list[Rows] = []
        seen = 0
        for vectors in self._vectors(part.name):
            here = places[(places >= seen) & (places < seen + len(vectors))] - seen
            chosen.append(vectors[here])
            seen += len(vectors)
        return np.concatenate(chosen) if chosen else np.empty((0, 1), np.float32)

    def _vectors(self, partition: str) -> Iterator[Rows]:
        rows = self._calls.ask(
            "query_iterator",
            self._alias,
            batch_size=_ROWS,
            output_fields=[schema.VECTOR],
            partition_names=[partition],
            timeout_s=_OPEN_TIMEOUT_S,
        )
        try:
            while batch := _next(rows):
                yield np.array([row[schema.VECTOR] for row in batch], np.float32)
        finally:
            rows.close()

    def _parts(self) -> list[_Part]:
        return [
            _Part(name, int(self._count(name)[0]["count(*)"]))
            for name in sorted(self._calls.ask("list_partitions", self._alias))
        ]

    def _count(self, partition: str) -> Any:
        return self._calls.ask(
            "query",
            self._alias,
            filter="",
            output_fields=["count(*)"],
            partition_names=[partition],
            timeout_s=_OPEN_TIMEOUT_S,
            **seeing(self._guarantee()),
        )

    def _require_server_for(self, version: str) -> None:
        """Before anything is touched: a server without GPUs takes some of these indexes and never builds them."""
        if self._index.kind.startswith("GPU_") and "gpu" not in version.lower():
            raise ConfigurationError(
                f"The index {self._index.kind} needs a Milvus that was built for GPUs; this is {version}.",
                advice="Run Milvus from an image whose tag ends in -gpu, or choose FLAT.",
            )

    def _index_parameters(self) -> Any:
        """Over the inner product, which for unit vectors is the cosine."""
        parameters = self._calls.library.MilvusClient.prepare_index_params()
        chosen = self._index
        more = {"params": dict(chosen.build)} if chosen.build else {}
        parameters.add_index(schema.VECTOR, index_type=chosen.kind, metric_type="IP", **more)
        return parameters

    def _search_parameters(self, limit: int) -> dict[str, Any]:
        chosen = dict(self._index.search)
        if self._index.kind == "HNSW":
            chosen["ef"] = max(chosen.get("ef", 0), limit)  # the server refuses less
        return {"metric_type": "IP", **({"params": chosen} if chosen else {})}

    def _prepare_index(self) -> None:
        """The collection has the index of the settings; another one is replaced, and nothing is searched meanwhile."""
        if self._has_index():
            return
        ask = self._calls.ask
        ask("release_collection", self._alias, timeout_s=_OPEN_TIMEOUT_S)
        for name in ask("list_indexes", self._alias, timeout_s=_OPEN_TIMEOUT_S):
            ask("drop_index", self._alias, index_name=name, timeout_s=_OPEN_TIMEOUT_S)
        ask("create_index", self._alias, self._index_parameters(), timeout_s=_BUILD_TIMEOUT_S)

    def _has_index(self) -> bool:
        wanted = {"index_type": self._index.kind, **{name: str(value) for name, value in self._index.build.items()}}
        for name in self._calls.ask("list_indexes", self._alias, timeout_s=_OPEN_TIMEOUT_S):
            found = self._calls.ask("describe_index", self._alias, index_name=name, timeout_s=_OPEN_TIMEOUT_S)
            if found and found.get("field_name") == schema.VECTOR:
                return wanted.items() <= _flat(found).items()
        return False


def _flat(described: Mapping[str, Any]) -> dict[str, str]:
    """Parameters stand beside the type or one level below, by version of the client."""
    below = described.get("params")
    flat = {**described, **(below if isinstance(below, Mapping) else {})}
    return {name: str(value) for name, value in flat.items()}


def _turned(vectors: Rows, directions: np.random.Generator) -> Rows:
    """Unit vectors at the cosine PROBE_COSINE to these, in directions drawn at random."""
    if not len(vectors):
        return vectors
    noise = directions.standard_normal(vectors.shape)
    noise -= np.sum(noise * vectors, axis=1, keepdims=True) * vectors
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    turned: Rows = (PROBE_COSINE * vectors + np.sqrt(1 - PROBE_COSINE**2) * noise).astype(np.float32)
    return turned


def _next(rows: Any) -> Any:
    try:
        return rows.next()
    except Exception as error:
        raise DependencyUnavailable(
            f"Milvus stopped listing ({type(error).__name__}).", advice="Try again; operators: check Milvus."
        ) from error
