"""The record of casework on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from services.review.adapters.sql_review_store import SqlReviewStore
from tests.contract import test_review_store as contract


class TestReviewStore(contract.TestReviewStore):
    @pytest.fixture
    def opened(self, database_url: str) -> Iterator[tuple[SqlReviewStore, sa.Engine]]:
        with contract.open_store_at(database_url) as opened:
            yield opened
