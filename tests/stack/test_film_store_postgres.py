"""The record of films on a real PostgreSQL: its contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.search.film.sql_store import SqlFilmStore
from tests.contract import test_film_store as contract

__all__ = ["TestFilmStore"]


class TestFilmStore(contract.TestFilmStore):
    @pytest.fixture
    def store(self, database_url: str) -> Iterator[SqlFilmStore]:
        with contract.open_store_at(database_url) as store:
            yield store
