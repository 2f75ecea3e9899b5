"""What the log says of questions between platforms: an intent before a picture leaves or a search is made for somebody
else, exactly one outcome after it. Each is a disclosure to a named partner (DPA 2018 s.62), in both logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from services.rpc.auditing import AuditRecorder
from services.rpc.v1 import audit_pb2
from services.search.identification.trail import search_object
from services.search.partners.ports import Direction, Exchange, PartnerStore
from services.shared.clock import Clock
from services.shared.errors import AuditUnavailable, Conflict, LikenessError
from services.shared.ids import is_id, new_id
from services.shared.tokens import Principal

SENT, RECEIVED, VIEWED = "partner_search", "partner_search_answered", "consortium_search_view"
# Longer than any question takes: the partner's 20 s, and what is recorded before and after it.
ORPHAN_AGE = timedelta(seconds=60)
_SWEPT_AT_ONCE = 200
_ACTIVITIES = {Direction.SENT: SENT, Direction.RECEIVED: RECEIVED}


@dataclass(slots=True)
class Act:
    """A question under way. `phase` and `details` are what its outcome will say."""

    phase: audit_pb2.Phase.ValueType = audit_pb2.DONE
    details: dict[str, str] = field(default_factory=dict)
    objects: list[str] = field(default_factory=list)


class PartnerTrail:
    """Safe for several threads. Every method raises AuditUnavailable: then nothing is sent, or nothing is given out."""

    def __init__(self, recorder: AuditRecorder, store: PartnerStore, clock: Clock) -> None:
        self._recorder = recorder
        self._store = store
        self._clock = clock

    @contextmanager
    def exchange(  # noqa: PLR0917 - what one entry says
        self,
        direction: Direction,
        partner: str,
        principal: Principal,
        purpose: str,
        case_reference: str,
        objects: tuple[str, ...],
        details: Mapping[str, str],
    ) -> Iterator[Act]:
        """Record the intent, run the block, record the outcome before the block's work is given out."""
        exchange = Exchange(
            activity_id=new_id(),
            outcome_entry_id=new_id(),
            direction=direction,
            partner=partner,
            principal=principal,
            case_reference=case_reference,
            purpose=purpose,
            objects=objects,
            opened_at=self._clock.now(),
        )
        self._store.open_exchange(exchange)
        self._record(exchange, audit_pb2.INTENT, details, new_id())
        act = Act()
        try:
            yield act
        except LikenessError as error:
            if not isinstance(error, AuditUnavailable):
                phase = audit_pb2.REFUSED if error.caller_fault else audit_pb2.FAILED
                self._end(exchange, phase, {"reason": error.code})
            raise
        except Exception:
            self._end(exchange, audit_pb2.FAILED, {"reason": LikenessError.code})
            raise
        self._end(exchange, act.phase, act.details, act.objects)

    def refused(self, partner: str, error: LikenessError) -> None:
        """A question of a partner that was not looked at: not its signature, used before, another picture."""
        self._recorder.record(
            audit_pb2.DISCLOSURE,
            audit_pb2.REFUSED,
            RECEIVED,
            new_id(),
            Principal(f"partner:{partner}", "", frozenset(), frozenset()),
            details={"reason": error.code, "partner": partner},
        )

    def viewed(self, principal: Principal, consortium_id: str, *, purpose: str, case_reference: str) -> None:
        """Before a consortium search is given out again."""
        self._recorder.record(
            audit_pb2.CONSULTATION,
            audit_pb2.DONE,
            VIEWED,
            new_id(),
            principal,
            purpose=purpose,
            case_reference=case_reference,
            objects=[consortium_object(consortium_id)],
            recipients=[f"person:{principal.person_id}"],
        )

    def view_refused(self, principal: Principal, consortium_id: str, error: LikenessError) -> None:
        self._recorder.record(
            audit_pb2.CONSULTATION,
            audit_pb2.REFUSED,
            VIEWED,
            new_id(),
            principal,
            objects=[consortium_object(consortium_id)],
            details={"reason": error.code},
        )

    def sweep(self) -> None:
        """Give every question that a stop left open the outcome UNKNOWN: the picture may have been received."""
        for exchange in self._store.open_exchanges(self._clock.now() - ORPHAN_AGE, _SWEPT_AT_ONCE):
            self._end(exchange, audit_pb2.UNKNOWN, {"reason": "stopped"})

    def _end(
        self,
        exchange: Exchange,
        phase: audit_pb2.Phase.ValueType,
        details: Mapping[str, str],
        objects: list[str] | None = None,
    ) -> None:
        try:
            self._record(exchange, phase, details, exchange.outcome_entry_id, tuple(objects or ()))
        except Conflict as error:
            # Somebody else held it for lost and said so: what the log says was not given out must not be.
            structlog.get_logger().warning("exchange_outcome_stands", activity_id=exchange.activity_id)
            self._store.close_exchange(exchange.activity_id)
            if phase == audit_pb2.DONE:
                raise AuditUnavailable("The question took too long and was given up.", advice="Ask again.") from error
            return
        self._store.close_exchange(exchange.activity_id)

    def _record(
        self,
        exchange: Exchange,
        phase: audit_pb2.Phase.ValueType,
        details: Mapping[str, str],
        entry_id: str,
        objects: tuple[str, ...] = (),
    ) -> None:
        self._recorder.record(
            audit_pb2.DISCLOSURE,
            phase,
            _ACTIVITIES[exchange.direction],
            exchange.activity_id,
            exchange.principal,
            purpose=exchange.purpose,
            case_reference=exchange.case_reference,
            objects=[*exchange.objects, *objects],
            recipients=[f"partner:{exchange.partner}"],
            details={"partner": exchange.partner, **details},
            entry_id=entry_id,
        )


def consortium_object(consortium_id: str) -> str:
    return f"consortium:{consortium_id}" if is_id(consortium_id) else "consortium:malformed"


def partner_search_object(search_id: str) -> str:
    """A search of a partner's as its own log names it."""
    return search_object(search_id).replace("search:", "partner-search:", 1)
