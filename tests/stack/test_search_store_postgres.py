"""The record of searches on a real PostgreSQL: its contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from services.search.adapters.sql_search_store import SqlSearchStore
from tests.contract import test_search_store as contract
from tests.contract.test_search_store import clock

__all__ = ["TestSearchStore", "clock"]


class TestSearchStore(contract.TestSearchStore):
    @pytest.fixture
    def opened(self, database_url: str) -> Iterator[tuple[SqlSearchStore, sa.Engine]]:
        with contract.open_store_at(database_url) as opened:
            yield opened
