"""The use case: a case's time is over, and the copies of its probes that searches sealed are erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.rpc.open_acts import OpenAct, OpenActs, Settled, settled_removal
from services.rpc.v1 import audit_pb2
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailable, LikenessError
from services.shared.ports.image_store import ImageStore
from services.shared.tokens import Principal

ACTIVITY = "probe_erasure"
_PROBE, _SEARCH = "probe:", "search:"


@dataclass(frozen=True, slots=True)
class Order:
    """Which pictures of which case, on whose word."""

    principal: Principal
    request_id: str
    case_reference: str
    reason: str
    sha256s: Sequence[str]


@dataclass(frozen=True, slots=True)
class Sealed:
    """What rests on a case's pictures: its searches that still have a probe, and the images of the probe store that
    nothing else needs.

    `is_running`: one of the searches has no outcome yet and may still seal its probe.
    """

    search_ids: Sequence[str]
    sha256s: Sequence[str]
    is_running: bool


class SealedProbes(Protocol):
    """The record of searches, as far as it says who holds a probe. All raise DependencyUnavailable."""

    def held(self, force: str, case_reference: str, sha256s: Sequence[str]) -> Sealed: ...

    def unmarked(self, search_ids: Sequence[str]) -> Sequence[str]:
        """Those of them that still have their probe, by the record."""
        ...

    def mark_erased(self, search_ids: Sequence[str], at: datetime) -> None:
        """From now on these searches have no probe any more. Those marked before keep their time."""
        ...


class EraseProbes:
    """Erases sealed probes. The record first: nobody runs a search again whose probe is about to go, and doing all of
    it again after a stop erases what is left."""

    def __init__(self, sealed: SealedProbes, probes: ImageStore, acts: OpenActs, clock: Clock) -> None:
        self._sealed = sealed
        self._probes = probes
        self._acts = acts
        self._clock = clock

    def __call__(self, order: Order) -> Sequence[str]:
        """The SHA-256 of what was erased. Raises AuditUnavailable, DependencyUnavailable."""
        held = self._sealed.held(order.principal.force, order.case_reference, order.sha256s)
        if held.is_running:
            raise DependencyUnavailable(
                "A search with one of these probes is running.", advice="Try again in half a minute."
            )
        there = [sha256 for sha256 in held.sha256s if self._probes.has(sha256)]
        if not there and not held.search_ids:
            return ()
        act = OpenAct(
            activity=ACTIVITY,
            operation=audit_pb2.ERASURE,
            principal=order.principal,
            objects=[*(_PROBE + name for name in there), *(_SEARCH + name for name in held.search_ids)],
            details={"reason": order.reason, "request": order.request_id},
            case_reference=order.case_reference,
        )
        self._acts.begin(act)
        try:
            self._sealed.mark_erased(held.search_ids, self._clock.now())
            for sha256 in there:
                self._probes.remove(sha256)
        except LikenessError as error:
            self._acts.end(act, audit_pb2.FAILED, {**act.details, "code": error.code})
            raise
        self._acts.end(act, audit_pb2.DONE, act.details)
        return there

    def settle(self, act: OpenAct) -> Settled:
        """What became of an erasure that was cut short. What is left is erased when casework orders it again, by an
        act of its own. Raises DependencyUnavailable."""
        probes, searches = _named(act, _PROBE), _named(act, _SEARCH)
        left = sum(self._probes.has(sha256) for sha256 in probes) + len(self._sealed.unmarked(searches))
        return settled_removal(len(probes) + len(searches) - left, left)


def _named(act: OpenAct, kind: str) -> list[str]:
    return [name.removeprefix(kind) for name in act.objects if name.startswith(kind)]
