"""The directory against a dict."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.search.gallery.columns import text_column
from services.search.gallery.directory import UNKNOWN, WITHDRAWN, Directory

IDS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)
BATCHES = st.lists(
    st.dictionaries(IDS, st.tuples(st.integers(-1, 2**60), st.integers(0, 2**60)), max_size=12), max_size=12
)


def set_all(directory: Directory, batch: dict[str, tuple[int, int]]) -> None:
    places = np.array([place for place, _ in batch.values()], np.int64)
    versions = np.array([version for _, version in batch.values()], np.int64)
    directory.set(text_column(list(batch)), places, versions)


def found(directory: Directory, ids: list[str]) -> list[tuple[int, int]]:
    places, versions = directory.find(text_column(ids))
    return list(zip(places.tolist(), versions.tolist(), strict=True))


@given(BATCHES, st.lists(IDS, max_size=5), st.integers(0, 6))
@settings(deadline=None)
def test_it_finds_what_was_set_last(
    batches: list[dict[str, tuple[int, int]]], others: list[str], gathered: int
) -> None:
    directory, model = Directory(gathered_at_most=gathered), dict[str, tuple[int, int]]()
    for batch in batches:
        set_all(directory, batch)
        model |= batch
        asked = [*model, *others]
        assert found(directory, asked) == [model.get(one, (UNKNOWN, -1)) for one in asked]


def test_large_batches_and_single_changes_meet() -> None:
    directory = Directory()
    many = {f"id-{number:06d}": (number, 1) for number in range(0, 20_000, 2)}
    set_all(directory, {"id-000001": (WITHDRAWN, 9), "id-000002": (5, 5)})
    set_all(directory, many)
    set_all(directory, {"id-000004": (WITHDRAWN, 2)})
    assert found(directory, ["id-000001", "id-000002", "id-000004", "id-019998", "id-019999"]) == [
        (WITHDRAWN, 9),
        (2, 1),
        (WITHDRAWN, 2),
        (19_998, 1),
        (UNKNOWN, -1),
    ]


def test_an_id_longer_than_all_before() -> None:
    directory = Directory()
    set_all(directory, {str(number): (number, 1) for number in range(10_000)})
    longer = "9" * 300
    assert found(directory, [longer]) == [(UNKNOWN, -1)]
    set_all(directory, {longer: (1, 1)})
    assert found(directory, [longer, "17"]) == [(1, 1), (17, 1)]
