"""Casework in memory, as the console's pages call it: one request, judged like a real one."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any

from PIL import Image

from services.review.casework.caller import Caller
from services.review.casework.comparison import Biography, ComparedCandidate, Comparison, OpenedCandidate
from services.review.casework.looking import HistoryItem
from services.review.casework.trail import About
from services.review.model import (
    Adjudication,
    Appearance,
    Case,
    CaseRequest,
    CaseState,
    CaseType,
    FeatureRemark,
    Finding,
    ImageNature,
    ProbeFace,
    ProbeFile,
    ProbeImage,
    ProbeSource,
    SearchVariant,
    Signature,
    Urgency,
)
from services.review.workflow import Action
from services.rpc.v1 import search_pb2
from services.shared.errors import Conflict, DependencyUnavailable, NotFound
from services.shared.tokens import Principal

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
REQUEST_ID = "019c1d2e-7a44-7f21-8c55-2f0c0fd0a1b7"
PROBE_ID = "019c1d2e-7a44-7f21-8c55-2f0c0fd0a1b8"


def landmarks(size_px: int) -> tuple[tuple[float, float], ...]:
    """About where the drawing has them."""
    drawn = ((368, 415), (532, 415), (450, 545), (385, 632), (515, 632))
    return tuple((x * size_px / 900, y * size_px / 900) for x, y in drawn)


FACE = ProbeFace(
    0, (200.0, 130.0, 320.0, 420.0), landmarks(720), 131.2, 0.97, 61.0,
    {"inter_eye_distance": 92.0, "sharpness": 38.0, "yaw": 84.0, "illumination": 55.0, "contrast": 71.0},
)  # fmt: skip


def sample_case(state: CaseState = CaseState.SEARCHED, **changes: Any) -> Case:
    request = CaseRequest(
        case_reference="NS/2026/004711",
        offence="Burglary of a dwelling",
        purpose="prevention_and_detection",
        necessity="No other line of enquiry names the person at the door.",
        case_type=CaseType.SUSPECT,
        urgency=Urgency.URGENT,
        source=ProbeSource.CCTV,
        nature=ImageNature.VIDEO_FRAME,
        face_chosen_by="PC 2217, who watched the recording",
        watchlists=("custody",),
    )
    probe = ProbeImage(
        probe_id=PROBE_ID,
        original=ProbeFile("ab" * 32, 48_213, "JPEG", 720, 720, 1),
        working_sha256="cd" * 32,
        working_scale=1.0,
        working_width=720,
        working_height=720,
        faces=(FACE,),
        face=0,
    )
    case = Case(
        request_id=REQUEST_ID,
        number="NS-2026-0042",
        force="northshire",
        version=3,
        state=state,
        request=request,
        requested_by="officer-2217",
        requested_at=NOW - timedelta(hours=3),
        due_at=NOW + timedelta(hours=21),
        updated_at=NOW,
        probes=(probe,),
    )
    return replace(case, **changes)


@dataclass
class FakeDesk:
    """The members of `casework.desk.Desk` that the pages use. `calls` is what they were asked to do."""

    candidate_count: int = 8
    case: Case = field(default_factory=sample_case)
    possible: tuple[Action, ...] = ()
    calls: list[tuple[str, Any]] = field(default_factory=list)
    wait_s: float = 0.0
    # Whom a search may be sent to; None while search does not answer.
    partners: tuple[search_pb2.PartnerOffer, ...] | None = ()
    judged: dict[str, Adjudication] = field(default_factory=dict)
    signature: Signature | None = None

    @property
    def looking(self) -> Any:
        return SimpleNamespace(queue=self._queue, case=self._case)

    @property
    def examining(self) -> Any:
        return SimpleNamespace(
            begin=self._note("begin"), comparison=self._comparison, open=self._open, judge=self._judge,
            undo=self._undo, sign=self._sign,
        )  # fmt: skip

    @property
    def pictures(self) -> Any:
        return SimpleNamespace(
            probe=self._probe_picture, reference=self._reference_picture, reference_faces=lambda *_: (FACE,)
        )

    @property
    def trail(self) -> Any:
        return SimpleNamespace(act=self._act)

    @contextmanager
    def _act(self, principal: Principal, activity: str, about: About) -> Iterator[Any]:
        self.calls.append((activity, (principal.person_id, about.objects)))
        yield SimpleNamespace(details={})

    @property
    def intake(self) -> Any:
        return SimpleNamespace(submit=self._submit, withdraw=self._note("withdraw"))

    def __getattr__(self, name: str) -> Any:
        """Every other use case only notes that it was called."""
        if name.startswith("_"):
            raise AttributeError(name)
        return SimpleNamespace(**{step: self._note(step) for step in _STEPS})

    @property
    def searching(self) -> Any:
        return _Searching(self)

    def _note(self, name: str) -> Any:
        def call(caller: Caller, *arguments: Any, **named: Any) -> Case:
            self.calls.append((name, (*arguments, *named.values())))
            return self.case

        return call

    def _submit(
        self, caller: Caller, texts: Mapping[str, Sequence[str]], pictures: Sequence[bytes], film: object = None
    ) -> Case:
        from services.review.casework.forms import parse_form  # noqa: PLC0415
        from services.shared.watchlists import WatchlistFile  # noqa: PLC0415

        parse_form(texts, len(pictures), WatchlistFile().current(), has_film=film is not None)
        self.calls.append(("submit", (texts, pictures)))
        return self.case

    def _case(self, caller: Caller, request_id: str) -> Any:
        if request_id != REQUEST_ID:
            raise NotFound("There is no such request.")
        history = (
            HistoryItem(NOW - timedelta(hours=3), "requested", "officer-2217"),
            HistoryItem(NOW, "accepted", "op-1"),
        )
        return SimpleNamespace(case=self.case, possible=self.possible, history=history, seen_at=NOW, kept=None)

    def _queue(self, caller: Caller, *, with_finished: bool = False) -> Sequence[Any]:
        rows = []
        states = (
            (CaseState.RECEIVED, Action.ACCEPT),
            (CaseState.SEARCHED, Action.BEGIN_FIRST),
            (CaseState.AWAITING_SECOND_REVIEW, None),
            (CaseState.DISPUTED, None),
            (CaseState.RELEASED, None),
        )
        for number, (state, action) in enumerate(states, 38):
            request = self.case.request
            rows.append(
                SimpleNamespace(
                    request_id=REQUEST_ID, number=f"NS-2026-{number:04}", state=state,
                    urgency=tuple(Urgency)[number % 3],
                    offence=request.offence, purpose=request.purpose, case_type=request.case_type,
                    requested_by=self.case.requested_by, requested_at=self.case.requested_at,
                    due_at=NOW + timedelta(hours=number - 39), is_overdue=number < 39, version=1,
                    possible=(action,) if action else (),
                )
            )  # fmt: skip
        return rows

    def _comparison(self, caller: Caller, request_id: str) -> Comparison:
        self._case(caller, request_id)
        candidates = tuple(self._candidate(number) for number in range(1, self.candidate_count + 1))
        return Comparison(
            REQUEST_ID, self.case.number, "examination", 1, 5 + len(self.judged), 3, self.case.probes, (), candidates,
            self.candidate_count - len(self.judged), 5.0, self.signature,
        )  # fmt: skip

    def _candidate(self, number: int) -> ComparedCandidate:
        name = f"candidate-{number}"
        made = self.judged.get(name)
        seen = Appearance("search", SearchVariant.ORIGINAL, number, 0.7123 - number / 50, f"reference-{number}")
        revealed = Biography(f"NS-{100200 + number}", "northshire", "custody", f"reference-{number}", (seen,))
        return ComparedCandidate(name, number, NOW if made else None, self.wait_s, made, revealed if made else None)

    def _open(self, caller: Caller, request_id: str, candidate_id: str) -> OpenedCandidate:
        number = int(candidate_id.removeprefix("candidate-"))
        self.calls.append(("open", (candidate_id,)))
        return OpenedCandidate(self._candidate(number), tuple(f"reference-{number}{part}" for part in ("", "-b", "-c")))

    def _judge(
        self, caller: Caller, request_id: str, version: int, *, candidate_id: str, finding: Finding,
        features: Sequence[FeatureRemark], remarks: str,
    ) -> Comparison:  # fmt: skip
        if self.wait_s:
            raise Conflict("Look longer.", code="not_viewed_long_enough", context={"wait_s": self.wait_s})
        self.judged[candidate_id] = Adjudication(candidate_id, finding, tuple(features), remarks, NOW, 12.0)
        return self._comparison(caller, request_id)

    def _undo(self, caller: Caller, request_id: str, version: int, candidate_id: str) -> Comparison:
        del self.judged[candidate_id]
        return self._comparison(caller, request_id)

    def _sign(self, caller: Caller, request_id: str, version: int) -> Case:
        self.signature = Signature(caller.person_id, NOW, date(2026, 1, 5), date(2027, 1, 5), "ef" * 32, 4711)
        return self.case

    def _probe_picture(self, caller: Caller, request_id: str, probe_id: str, variant: str) -> Any:
        self.calls.append(("picture", (probe_id, variant)))
        return _shown(0)

    def _reference_picture(self, caller: Caller, request_id: str, candidate_id: str, reference_id: str) -> Any:
        self.calls.append(("picture", (candidate_id, reference_id)))
        return _shown(int(reference_id.split("-")[1]))


@dataclass(frozen=True)
class _Searching:
    """`RunSearch` as the page of a probe uses it."""

    desk: FakeDesk

    def __call__(self, caller: Caller, *arguments: Any, **named: Any) -> Case:
        self.desk.calls.append(("search", (*arguments, *named.values())))
        return self.desk.case

    def partners(self, caller: Caller, case: Case) -> Sequence[search_pb2.PartnerOffer]:
        if self.desk.partners is None:
            raise DependencyUnavailable("search is away")
        return self.desk.partners


_STEPS = (
    *("accept", "send_back", "assess", "enhance", "run", "arbitrate", "release", "record_outcome"),
    *("keep_unsolved", "close"),
)


@cache
def picture(number: int) -> bytes:
    """A plain picture as JPEG, another one for each number."""
    stream = io.BytesIO()
    Image.linear_gradient("L").rotate(number * 10).convert("RGB").resize((720, 720)).save(stream, "JPEG")
    return stream.getvalue()


def _shown(number: int) -> Any:
    return SimpleNamespace(content=picture(number), width=720, height=720)
