"""What a store of agreements and of requests keeps; on SQLite here, on PostgreSQL by tests/stack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.search.adapters.sql_agreement_store import SqlAgreementStore
from services.search.adapters.sql_request_records import SqlRequestRecords
from services.search.agreements.book import AgreementBook
from services.search.agreements.documents import Grant, Signature, Withdrawal
from services.search.agreements.ports import AgreementRecord
from services.search.policy import Decision, Denial
from services.shared.errors import Conflict, DependencyUnavailable
from services.shared.ids import new_id
from services.shared.watchlists import CaseType, WatchlistFile
from tests.contract.test_search_store import open_store_at
from tests.unit.search.fakes import OPERATOR, REQUEST, ManualClock, new_search

GRANT = Grant(
    reference="A-1",
    watchlist="op_liberal",
    owner="westhaven",
    signed_on=date(2026, 1, 1),
    expires_on=date(2030, 1, 1),
)
ENDED = Withdrawal(reference="A-1", watchlist="op_liberal", owner="westhaven", withdrawn_on=date(2026, 6, 1))
SIGNATURE = Signature(key_id="w-1", signature="A" * 88)
WHEN = datetime(2026, 6, 1, 12, 30, tzinfo=UTC)
FIRST = AgreementRecord(GRANT, SIGNATURE, 1, WHEN, "ad-1", "northshire")
SECOND = AgreementRecord(ENDED, None, 2, WHEN, "ad-2", "westhaven", "it was over")


class TestAgreementStore:
    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[sa.Engine]:
        with open_store_at(f"sqlite:///{tmp_path / 'search.sqlite'}") as (_, engine):
            yield engine

    def test_records_come_back_as_they_were_added_and_count(self, engine: sa.Engine) -> None:
        store = SqlAgreementStore(engine)
        assert (store.revision(), list(store.records())) == (0, [])
        store.add(FIRST)
        store.add(SECOND)
        assert list(store.records()) == [FIRST, SECOND]
        assert store.revision() == 2

    def test_one_version_is_added_once(self, engine: sa.Engine) -> None:
        store = SqlAgreementStore(engine)
        store.add(FIRST)
        with pytest.raises(Conflict):
            store.add(replace(FIRST, reason="again"))
        assert list(store.records()) == [FIRST]

    def test_a_grant_that_nobody_signed_permits_nothing(self, engine: sa.Engine) -> None:
        """As when somebody writes into the database."""
        store = SqlAgreementStore(engine)
        book = AgreementBook(WatchlistFile(), store)
        assert "westhaven" not in book.current().signatories("op_liberal", date(2026, 5, 1))
        store.add(FIRST)
        assert "westhaven" not in book.current().signatories("op_liberal", date(2026, 5, 1))

    def test_only_signed_leaves_out_what_is_configured(self, engine: sa.Engine) -> None:
        book = AgreementBook(WatchlistFile(), SqlAgreementStore(engine), only_signed=True)
        assert book.current().agreements == ()
        assert book.current() is book.current()

    def test_what_cannot_be_read_permits_nothing(self, engine: sa.Engine) -> None:
        store = SqlAgreementStore(engine)
        with engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE agreement_records"))
        with pytest.raises(DependencyUnavailable):
            AgreementBook(WatchlistFile(), store).current()

    def test_requests_come_back_with_all_that_a_decision_is_made_about(self, engine: sa.Engine) -> None:
        from services.search.adapters.sql_search_store import SqlSearchStore  # noqa: PLC0415 - one test's

        clock = ManualClock()
        records, searches = SqlRequestRecords(engine, clock), SqlSearchStore(engine)
        asked = replace(REQUEST, case_type=CaseType.VICTIM)
        opened = new_search(clock, request=asked)
        searches.open(opened)
        clock.pass_(60)
        denied = Decision((), (Denial("purpose_not_permitted", ""),), "p" * 64, "w" * 64)
        records.denied(new_id(), replace(OPERATOR, trained_until=None), REQUEST, denied)
        records.denied(new_id(), replace(OPERATOR, force="eastmoor"), REQUEST, denied)

        first, second = records.since(opened.opened_at, "northshire", 10)
        assert (first.request_id, first.was_permitted) == (opened.search_id, True)
        assert first.principal == OPERATOR
        assert (first.request.case_type, first.request.watchlists) == (CaseType.VICTIM, ("custody",))
        assert (second.was_permitted, second.principal.trained_until) == (False, None)
        assert [one.request_id for one in records.since(opened.opened_at, "northshire", 1)] == [second.request_id]
        assert records.since(clock.now(), "northshire", 10) == [second]

    def test_denied_requests_are_forgotten_after_two_months(self, engine: sa.Engine) -> None:
        clock = ManualClock()
        records, beginning = SqlRequestRecords(engine, clock), clock.now()
        records.denied(new_id(), OPERATOR, REQUEST, Decision((), ()))
        clock.pass_(63 * 86400)
        records.denied(new_id(), OPERATOR, REQUEST, Decision((), ()))
        [kept] = records.since(beginning, "northshire", 10)
        assert kept.opened_at == clock.now()
