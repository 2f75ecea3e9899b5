"""Facts, receipts and links of custody systems in the ledger's store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.life_schema import custody_facts, enrolment_facts, feed_receipts, subject_links
from services.ingest.adapters.migration_schema import forget_other_templates
from services.ingest.adapters.schema import enrolments, outbox
from services.ingest.adapters.sql_erasures import IS_ERASED, is_of_until
from services.ingest.adapters.sql_ledger import insert_ignoring, next_versions
from services.ingest.adapters.sql_queries import reading
from services.ingest.enrolling.enrolment import EnrolmentState
from services.ingest.life.custody import (
    CustodyFacts,
    EnrolmentFacts,
    OwnersItem,
    Receipt,
    ReceiptOutcome,
    SubjectLink,
    Whereabouts,
)
from services.ingest.life.erasure import day_of
from services.shared.ports.event_log import Event

_WITHDRAWN = EnrolmentState.WITHDRAWN.value
_ENROLLED = EnrolmentState.ENROLLED.value
_MAX_LINKS = 16  # of merges one after the other; more is a circle


class SqlCustody:
    """See services.ingest.life.custody.CustodyLedger."""

    def __init__(self, engine: sa.Engine, committer: GroupCommitter) -> None:
        self._engine = engine
        self._committer = committer

    # --- receipts

    def receipt(self, owner: str, event_id: str) -> Receipt | None:
        query = sa.select(feed_receipts).where(feed_receipts.c.owner == owner, feed_receipts.c.event_id == event_id)
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _receipt(row)

    def receive(self, receipt: Receipt, event: Event) -> None:
        values = asdict(receipt) | {"outcome": receipt.outcome.value}

        def work(connection: sa.Connection) -> None:
            replaceable = sa.and_(
                feed_receipts.c.owner == receipt.owner,
                feed_receipts.c.event_id == receipt.event_id,
                feed_receipts.c.outcome == ReceiptOutcome.REFUSED.value,
            )
            connection.execute(sa.delete(feed_receipts).where(replaceable))
            connection.execute(insert_ignoring(connection, feed_receipts).values(values))
            row = {"topic": event.topic, "key": event.key, "value": event.value}
            connection.execute(sa.insert(outbox).values(**row, headers=json.dumps(dict(event.headers))))

        self._committer.run(work)

    # --- facts

    def note_image(self, facts: EnrolmentFacts) -> None:
        self._committer.run(
            lambda connection: (
                connection.execute(insert_ignoring(connection, enrolment_facts).values(asdict(facts))).rowcount
            )
        )

    def note_custody(self, facts: CustodyFacts) -> bool:
        return self._committer.run(lambda connection: _note_custody(connection, facts))

    # --- links

    def subject_of(self, owner: str, subject_id: str, image_sha256: str) -> str:
        with reading(self._engine) as connection:
            moved = _link(connection, owner, subject_id, image_sha256) if image_sha256 else None
            found = subject_id if moved is None else str(moved.moved_to)
            for _ in range(_MAX_LINKS):
                link = _link(connection, owner, found, "")
                # An image that was moved by itself after the merge stays where it was moved to.
                if link is None or (moved is not None and link.as_of_ms < moved.as_of_ms):
                    break
                found = str(link.moved_to)
        return found

    def link(self, link: SubjectLink, now_ms: int) -> int:
        return self._committer.run(lambda connection: _take_link(connection, link, now_ms))

    def enrolments_of_image(
        self,
        owner: str,
        subject_id: str,
        image_sha256: str,
        *,
        until_ms: int | None = None,
        with_withdrawn: bool = False,
    ) -> Sequence[str]:
        query = sa.select(enrolments.c.enrolment_id).where(
            enrolments.c.owner == owner, enrolments.c.subject_id == subject_id
        )
        if until_ms is not None:
            query = query.where(is_of_until(until_ms, enrolments.c.captured_on <= day_of(until_ms)))
        query = query.where(sa.not_(IS_ERASED) if with_withdrawn else enrolments.c.state != _WITHDRAWN)
        if image_sha256:
            query = query.where(enrolments.c.image_sha256 == image_sha256)
        with reading(self._engine) as connection:
            return list(connection.scalars(query))

    # --- the owner's count

    def whereabouts(self, owner: str, items: Sequence[OwnersItem]) -> Sequence[Whereabouts]:
        with reading(self._engine) as connection:
            return [_whereabouts(connection, owner, item) for item in items]


def _receipt(row: sa.Row[Any]) -> Receipt:
    values = dict(row._mapping)
    return Receipt(**(values | {"outcome": ReceiptOutcome(values["outcome"])}))


def _note_custody(connection: sa.Connection, facts: CustodyFacts) -> bool:
    key = {"owner": facts.owner, "custody_reference": facts.custody_reference}
    fresh: dict[str, Any] = {
        "subject_id": facts.subject_id,
        "disposal": "",
        "disposal_on": "",
        "disposal_as_of_ms": -1,
        "birth_band": "",
        "is_notice_given": None,
    }
    connection.execute(insert_ignoring(connection, custody_facts).values(**key, **fresh))
    is_row = sa.and_(*(custody_facts.c[name] == value for name, value in key.items()))
    known = connection.execute(sa.select(custody_facts).where(is_row).with_for_update()).one()
    changes: dict[str, Any] = {}
    if facts.birth_band and not known.birth_band:
        changes["birth_band"] = facts.birth_band
    if facts.is_notice_given is not None and known.is_notice_given is None:
        changes["is_notice_given"] = facts.is_notice_given
    is_newer = facts.as_of_ms > known.disposal_as_of_ms
    if facts.disposal and is_newer:
        changes |= {
            "disposal": facts.disposal,
            "disposal_on": facts.disposal_on,
            "disposal_as_of_ms": facts.as_of_ms,
        }
    if changes:
        connection.execute(sa.update(custody_facts).where(is_row).values(changes))
    return bool(changes)


def _link(connection: sa.Connection, owner: str, subject_id: str, image_sha256: str) -> sa.Row[Any] | None:
    key = (subject_links.c.owner == owner, subject_links.c.subject_id == subject_id)
    query = sa.select(subject_links).where(*key, subject_links.c.image_sha256 == image_sha256)
    return connection.execute(query).one_or_none()


def _take_link(connection: sa.Connection, link: SubjectLink, now_ms: int) -> int:
    known = _link(connection, link.owner, link.subject_id, link.image_sha256)
    if known is not None and known.as_of_ms >= link.as_of_ms:
        return -1
    if known is not None:
        same = (subject_links.c.owner == link.owner, subject_links.c.subject_id == link.subject_id)
        connection.execute(sa.delete(subject_links).where(*same, subject_links.c.image_sha256 == link.image_sha256))
    connection.execute(sa.insert(subject_links).values(asdict(link)))
    query = sa.select(enrolments).where(
        enrolments.c.owner == link.owner,
        enrolments.c.subject_id == link.subject_id,
        enrolments.c.state != _WITHDRAWN,
    )
    if link.image_sha256:
        query = query.where(enrolments.c.image_sha256 == link.image_sha256)
    rows = connection.execute(query.with_for_update()).all()
    for row, version in zip(rows, next_versions(connection, len(rows)) if rows else (), strict=True):
        connection.execute(
            sa.update(enrolments)
            .where(enrolments.c.enrolment_id == row.enrolment_id)
            .values(version=version, **_moved(connection, row, link, now_ms))
        )
    return len(rows)


def _moved(connection: sa.Connection, row: sa.Row[Any], link: SubjectLink, now_ms: int) -> dict[str, Any]:
    """How the row changes. An enrolled one goes through settlement again, which tells the gallery; until then it is
    found under its former subject, and never not at all."""
    twin = sa.select(enrolments.c.enrolment_id).where(
        enrolments.c.watchlist_id == row.watchlist_id,
        enrolments.c.owner == row.owner,
        enrolments.c.subject_id == link.moved_to,
        enrolments.c.image_sha256 == row.image_sha256,
        enrolments.c.model_id == row.model_id,
    )
    if connection.execute(twin).first() is not None:
        forget_other_templates(connection, [row.enrolment_id])
        return {
            "state": _WITHDRAWN,
            "template": None,
            "withdrawn_at_ms": now_ms,
            "withdrawn_by": "service:custody-feed",
            "withdrawal_reason": f"duplicate of {link.moved_to} after a merge",
            "is_withdrawal_settled": False,
        }
    again = {"state": EnrolmentState.ACCEPTED.value} if row.state == _ENROLLED else {}
    return {"subject_id": link.moved_to, "leased_by": "", "leased_until_ms": 0, **again}


def _whereabouts(connection: sa.Connection, owner: str, item: OwnersItem) -> Whereabouts:
    receipt = None
    if item.event_id:
        query = sa.select(feed_receipts).where(
            feed_receipts.c.owner == owner, feed_receipts.c.event_id == item.event_id
        )
        receipt = connection.execute(query).one_or_none()
    if receipt is not None and not receipt.enrolment_id:
        return Whereabouts(item, str(receipt.outcome), str(receipt.reason), str(receipt.detail))
    wanted = [enrolments.c.owner == owner]
    if receipt is not None:
        wanted.append(enrolments.c.enrolment_id == receipt.enrolment_id)
    elif item.image_sha256:
        # By its content, because the subject may have been merged since.
        wanted.append(enrolments.c.image_sha256 == item.image_sha256)
    else:
        return Whereabouts(item, "never_received")
    columns = (enrolments.c.enrolment_id, enrolments.c.state, enrolments.c.reason, enrolments.c.detail)
    found = connection.execute(
        sa.select(*columns, enrolments.c.withdrawal_reason, enrolments.c.subject_id).where(*wanted)
    ).all()
    own = [row for row in found if row.subject_id == item.subject_id] or found
    best = next((row for row in own if row.state == _ENROLLED), own[0] if own else None)
    if best is None:
        return Whereabouts(item, "never_received")
    reason = best.withdrawal_reason if best.state == _WITHDRAWN else best.reason
    return Whereabouts(item, str(best.state), str(reason), str(best.detail), str(best.enrolment_id))
