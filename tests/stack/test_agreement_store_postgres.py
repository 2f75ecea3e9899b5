"""Agreements and requests on a real PostgreSQL: their contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.contract import test_agreement_store as contract
from tests.contract.test_search_store import open_store_at

__all__ = ["TestAgreementStore"]

pytestmark = pytest.mark.stack


class TestAgreementStore(contract.TestAgreementStore):
    @pytest.fixture
    def engine(self, database_url: str) -> Iterator[sa.Engine]:
        with open_store_at(database_url) as (_, engine):
            yield engine
