"""Where each reference is and in which version: sorted columns of ids instead of a million Python objects."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.search.gallery.columns import TextColumn

WITHDRAWN = -1
UNKNOWN = -2

Numbers = npt.NDArray[np.int64]

# Single changes are gathered in a dict until there are this many, or an eighth of the whole, and then sorted in.
GATHERED_AT_MOST = 4096


class Directory:
    """id -> (place, version). A place is a number >= 0 or WITHDRAWN. For the one writer: not thread-safe."""

    def __init__(self, gathered_at_most: int = GATHERED_AT_MOST) -> None:
        self._gathered_at_most = gathered_at_most
        self._ids: TextColumn = np.empty(0, "S1")
        self._places: Numbers = np.empty(0, np.int64)
        self._versions: Numbers = np.empty(0, np.int64)
        self._gathered: dict[bytes, tuple[int, int]] = {}

    def find(self, ids: TextColumn) -> tuple[Numbers, Numbers]:
        """Places and versions; UNKNOWN and -1 for an id never seen."""
        at, is_known = self._locate(ids)
        places = np.full(len(ids), UNKNOWN, np.int64)
        versions = np.full(len(ids), -1, np.int64)
        places[is_known] = self._places[at[is_known]]
        versions[is_known] = self._versions[at[is_known]]
        if self._gathered:
            for i, key in enumerate(ids.tolist()):
                if (entry := self._gathered.get(key)) is not None:
                    places[i], versions[i] = entry
        return places, versions

    def set(self, ids: TextColumn, places: Numbers, versions: Numbers) -> None:
        """Insert or overwrite distinct ids."""
        if len(ids) < self._gathered_at_most:
            pairs = zip(places.tolist(), versions.tolist(), strict=True)
            self._gathered.update(zip(ids.tolist(), pairs, strict=True))
            if len(self._gathered) > max(self._gathered_at_most, len(self._ids) // 8):
                self._sort_gathered_in()
        else:
            self._sort_gathered_in()
            self._sort_in(ids, places, versions)

    def _sort_gathered_in(self) -> None:
        if not self._gathered:
            return
        entries = np.array(list(self._gathered.values()), np.int64)
        self._sort_in(np.array(list(self._gathered)), entries[:, 0], entries[:, 1])
        self._gathered = {}

    def _sort_in(self, ids: TextColumn, places: Numbers, versions: Numbers) -> None:
        at, is_known = self._locate(ids)
        self._places[at[is_known]] = places[is_known]
        self._versions[at[is_known]] = versions[is_known]
        joined = np.concatenate([self._ids, ids[~is_known]])
        order = np.argsort(joined, kind="stable")  # merges two sorted runs in one pass
        self._ids = joined[order]
        self._places = np.concatenate([self._places, places[~is_known]])[order]
        self._versions = np.concatenate([self._versions, versions[~is_known]])[order]

    def _locate(self, ids: TextColumn) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        if not len(self._ids):
            return np.zeros(len(ids), np.intp), np.zeros(len(ids), np.bool_)
        at = np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)
        return at, self._ids[at] == ids
