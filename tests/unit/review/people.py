"""Casework in one process for tests: a real store, and peers that answer as told."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from threading import Lock
from typing import IO, Any

import cv2
import numpy as np
import orjson
from prometheus_client import CollectorRegistry

from services.review.adapters.sql_review_store import SqlReviewStore
from services.review.bootstrap import MIGRATIONS
from services.review.casework.caller import Caller
from services.review.casework.comparison import Comparison
from services.review.casework.desk import Desk, Peers
from services.review.error_rates import ErrorRates
from services.review.model import Case, FacialFeature, FeatureRemark, Finding, Observation, Suitability
from services.rpc.v1 import audit_pb2, embed_pb2, picture_pb2, probes_pb2, reference_pb2, search_pb2
from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.biometric import Box, DetectedFace, ImageAnalysis, ImageInfo, ModelProvenance, Quality
from services.shared.database import create_engine, migrate
from services.shared.errors import AuditUnavailable, DependencyUnavailable
from services.shared.settings import DatabaseSettings
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal
from services.shared.watchlists import WatchlistFile

NOW = datetime(2026, 6, 1, 9, 0, tzinfo=UTC)
WATCHLISTS = frozenset({"custody", "op_liberal", "sex_offenders"})
FORM: Mapping[str, Sequence[str]] = {
    "case_reference": ["NS/2026/1"],
    "offence": ["burglary"],
    "purpose": ["prevention_and_detection"],
    "necessity": ["The only line of enquiry."],
    "case_type": ["suspect"],
    "urgency": ["urgent"],
    "source": ["cctv"],
    "nature": ["video_frame"],
    "face_chosen_by": ["PC 1234, from the door camera"],
    "watchlists": ["custody"],
}
MATCH = tuple(
    FeatureRemark(feature, Observation.SIMILAR, "alike")
    for feature in (FacialFeature.EARS, FacialFeature.NOSE, FacialFeature.SCARS)
)


def person(
    person_id: str,
    *roles: str,
    force: str = "northshire",
    watchlists: frozenset[str] = WATCHLISTS,
    trained_until: date | None = date(2027, 1, 1),
) -> Caller:
    return Caller(Principal(person_id, force, frozenset(roles), watchlists, trained_until), f"token-of-{person_id}")


OFFICER = person("officer", "requester", trained_until=None)
ANNA, BERT = person("anna", "operator"), person("bert", "operator")
SUE = person("sue", "supervisor")


class StillClock:
    """Time stands still until it is told."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return self.at.timestamp()

    def pass_s(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class AuditLog:
    """Remembers entries; `is_down` refuses them, `down_after` so many more."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    is_down: bool = False
    down_after: int | None = None
    lock: Lock = field(default_factory=Lock)

    def record(
        self,
        operation: audit_pb2.Operation.ValueType,
        phase: audit_pb2.Phase.ValueType,
        activity: str,
        activity_id: str,
        principal: Principal,
        *,
        purpose: str = "",
        case_reference: str = "",
        objects: Sequence[str] = (),
        recipients: Sequence[str] = (),
        details: Mapping[str, str] | None = None,
        entry_id: str | None = None,
    ) -> audit_pb2.AppendResponse:
        with self.lock:
            if self.is_down or self.down_after == 0:
                raise AuditUnavailable("The audit log cannot be written.")
            if self.down_after is not None:
                self.down_after -= 1
            self.entries.append(
                {
                    "operation": audit_pb2.Operation.Name(operation),
                    "phase": audit_pb2.Phase.Name(phase),
                    "activity": activity,
                    "activity_id": activity_id,
                    "person": principal.person_id,
                    "case": case_reference,
                    "objects": list(objects),
                    "recipients": list(recipients),
                    "details": dict(details or {}),
                    "entry_id": entry_id,
                }
            )
            sequence = len(self.entries) - 1
        leaf = hashlib.sha256(str(sequence).encode()).digest()
        return audit_pb2.AppendResponse(sequence=sequence, leaf_hash=leaf, recorded_at="2026-06-01T09:00:00.000Z")

    def of(self, activity: str) -> list[str]:
        """The phases of an activity, in the order in which they came."""
        return [entry["phase"] for entry in self.entries if entry["activity"] == activity]


def png(width: int = 160, height: int = 120, seed: int = 1) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


MODEL = ModelProvenance("m1", "det", "d" * 64, "rec", "e" * 64, "Apache-2.0", 128, "p3", "onnxruntime", "CPU")


class Embed:
    """One face in every picture, of a quality that can be set; with several `lefts` as many, side by side."""

    def __init__(self) -> None:
        self.inter_eye_px = 70.0
        self.faces = 1
        self.lefts: tuple[float, ...] = (50.0,)

    def analyse(
        self, image: bytes, selection: embed_pb2.AnalyseRequest.Selection.ValueType, face_index: int = 0
    ) -> ImageAnalysis:
        quality = Quality(61.0, {"sharpness": 55.0, "pose": 30.0})
        lefts = self.lefts if len(self.lefts) > 1 else self.lefts * self.faces
        faces = tuple(
            DetectedFace(Box(left, 30, 60, 70), ((left + 30, 50),) * 5, 0.9, self.inter_eye_px, quality, None)
            for left in lefts
        )
        return ImageAnalysis(ImageInfo("PNG", 160, 120, 1, 1, 1), faces, MODEL, {})

    def render(self, image: bytes, *, max_side: int, as_jpeg: bool = False) -> picture_pb2.RenderedPicture:
        if as_jpeg:
            image = cv2.imencode(".jpg", cv2.imdecode(np.frombuffer(image, np.uint8), 1))[1].tobytes()  # type: ignore[arg-type]
        return picture_pb2.RenderedPicture(content=image, width=160, height=120, scale=1.0)


class Search:
    """Answers with subjects S1, S2, ... of one owner in one watchlist, best first."""

    def __init__(self) -> None:
        self.count = 3
        self.watchlist, self.owner = "custody", "northshire"
        # What it says against the next probes: codes.
        self.flags: tuple[str, ...] = ()
        self.asked: list[tuple[str, search_pb2.IdentifyRequest]] = []
        # Whom it offers; what each says, by name: a status for one that gives no list.
        self.offers: tuple[search_pb2.PartnerOffer, ...] = ()
        self.partner_status: dict[str, str] = {}

    def partners(self, bearer: str, watchlists: Sequence[str]) -> Sequence[search_pb2.PartnerOffer]:
        return self.offers

    def identify(self, bearer: str, request: search_pb2.IdentifyRequest) -> bytes:
        self.asked.append((bearer, request))
        document = {
            "search_id": f"00000000-0000-7000-8000-{len(self.asked):012d}",
            "status": "done",
            "probe": {
                "flags": [{"code": code, "detail": f"Told of {code}."} for code in self.flags],
                "needs_supervisor": bool(self.flags),
            },
            "faces": [],
            "face": request.face,
            "candidates": [
                {
                    "rank": rank,
                    "subject_id": f"S{rank}",
                    "reference_id": f"00000000-0000-7000-9000-{rank:012d}",
                    "watchlist": self.watchlist,
                    "owner": self.owner,
                    "score": 0.9 - rank / 10,
                }
                for rank in range(1, self.count + 1)
            ],
            "searched": [{"watchlist": "custody", "owners": ["northshire"], "agreements": []}],
            "searchable": 107_500,
            "unsearchable": 12,
            "gallery": "exact in-process",
            "model": {
                name: getattr(MODEL, name)
                for name in (
                    "model_id",
                    "detector",
                    "detector_sha256",
                    "recogniser",
                    "recogniser_sha256",
                    "runtime",
                    "provider",
                )
            },
            "threshold": {"value": None, "version": None, "why": "", "by_watchlist": []},
        }
        if request.partners:
            document = {
                "consortium_id": "00000000-0000-7000-b000-000000000001",
                "home": {"source": "northshire", **document},
                "partners": [self._told(name) for name in request.partners],
            }
        return orjson.dumps(document)

    def _told(self, name: str) -> dict[str, Any]:
        status = self.partner_status.get(name, "answered")
        if status != "answered":
            problem = {"code": "x", "detail": f"{name} said nothing.", "advice": ""}
            return {"partner": name, "status": status, "watchlists": ["op_liberal"], "problem": problem, "answer": None}
        candidate = {"subject_id": f"{name}-1", "reference_id": "r-1", "watchlist": "op_liberal", "owner": name}
        answer = {
            "search_id": "00000000-0000-7000-c000-000000000001",
            "model": {"model_id": "theirs"},
            "searchable": 321,
            "searched": [{"watchlist": "op_liberal", "owners": [name], "agreements": [f"AGR-{name}"]}],
            "candidates": [{**candidate, "rank": 1, "score": 0.61}],
        }
        return {"partner": name, "status": status, "watchlists": ["op_liberal"], "problem": None, "answer": answer}


class Ingest:
    """Two references of every subject."""

    def references_of(
        self, bearer: str, watchlist: str, owner: str, subject_id: str
    ) -> Sequence[reference_pb2.EnrolledReference]:
        return [
            reference_pb2.EnrolledReference(
                reference_id=f"{subject_id}-{number}", subject_id=subject_id, image_sha256="a" * 64
            )
            for number in (1, 2)
        ]

    def image(self, bearer: str, watchlist: str, owner: str, subject_id: str, reference_id: str) -> bytes:
        return png(seed=7)


class Agreements:
    """Every owner has one, until it is ended."""

    def __init__(self) -> None:
        self.ended: set[str] = set()

    def find(self, watchlist_id: str, owner: str, on: date) -> str:
        return "" if owner in self.ended else f"AGR-{watchlist_id}-{owner}"


class Copies:
    """What search sealed; `is_down` refuses."""

    def __init__(self) -> None:
        self.sealed: set[str] = set()
        self.asked: list[probes_pb2.EraseProbesRequest] = []
        self.is_down = False

    def erase(self, request: probes_pb2.EraseProbesRequest) -> Sequence[str]:
        self.asked.append(request)
        if self.is_down:
            raise DependencyUnavailable("search is away")
        erased = sorted(self.sealed.intersection(request.sha256s))
        self.sealed -= set(erased)
        return erased


class FilmReader:
    """Reads every film at once: two tracks, of one frame each."""

    def __init__(self) -> None:
        self.status = "done"
        self.handed_in: list[tuple[str, Mapping[str, str | list[str]], bytes]] = []
        self.keys: list[str] = []
        self.frames = {hashlib.sha256(frame).hexdigest(): frame for frame in (png(seed=11), png(seed=12))}

    def hand_in(self, bearer: str, form: Mapping[str, str | list[str]], film: IO[bytes], key: str) -> str:
        self.keys.append(key)
        self.handed_in.append((bearer, form, film.read()))
        return f"00000000-0000-7000-a000-{len(self.handed_in):012d}"

    def see(self, bearer: str, reading_id: str, *, with_chips: bool) -> Mapping[str, Any]:
        still = {"frame_number": 40, "pts": 20480, "time_s": 1.6, "face": 0, "quality": 50.0, "inter_eye_px": 70.0}
        tracks = [
            {
                "track": number,
                "appearances": [{"from_s": 1.0, "until_s": 2.0}],
                "frames_seen": 6,
                "stills": [{**still, "still_sha256": sha256}],
            }
            for number, sha256 in enumerate(self.frames)
        ]
        problem = {"detail": "It is no film.", "advice": "Send the file itself."}
        return {
            "status": self.status,
            "progress": {"share": 1.0, "frames_looked_at": 12},
            "film": {"duration_s": 4.0},
            "warnings": ["ends_early"],
            "problem": problem if self.status == "refused" else None,
            "tracks": tracks if self.status == "done" else [],
        }

    def still(self, bearer: str, reading_id: str, sha256: str) -> bytes:
        return self.frames[sha256]


class Setter:
    """Keeps what was to be set."""

    def __init__(self) -> None:
        self.facts: Mapping[str, Any] = {}
        self.pictures: Mapping[str, bytes] = {}

    def result(self, facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> bytes:
        self.facts, self.pictures = facts, pictures
        return b"%PDF result"

    def disclosure(self, facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> bytes:
        self.facts, self.pictures = facts, pictures
        return b"%PDF disclosure"


@cache
def _empty_store() -> bytes:
    """A migrated database; a copy of it is made in a millisecond, a migration takes a hundred."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "review.sqlite"
        engine = create_engine(DatabaseSettings(url=f"sqlite:///{path}"))
        migrate(engine, MIGRATIONS)
        engine.dispose()
        return path.read_bytes()


@dataclass
class Unit:
    """An identification unit at work."""

    desk: Desk
    store: SqlReviewStore
    clock: StillClock
    audit: AuditLog
    embed: Embed
    search: Search
    setter: Setter
    agreements: Agreements
    films: FilmReader
    copies: Copies

    @classmethod
    def open(cls, folder: Path, min_view_s: float = 5.0, rates: ErrorRates | None = None) -> Unit:
        (folder / "review.sqlite").write_bytes(_empty_store())
        engine = create_engine(DatabaseSettings(url=f"sqlite:///{folder / 'review.sqlite'}"))
        store, clock, audit = SqlReviewStore(engine), StillClock(), AuditLog()
        embed, search, setter, agreements = Embed(), Search(), Setter(), Agreements()
        films, copies = FilmReader(), Copies()
        peers = Peers(
            audit=audit,
            searcher=search,
            references=Ingest(),
            analyser=embed,
            renderer=embed,
            agreements=agreements,
            films=films,
            copies=copies,
        )
        desk = Desk.make(
            store=store,
            images=FolderImageStore(folder / "pictures"),
            peers=peers,
            watchlists=WatchlistFile(),
            setter=setter,
            clock=clock,
            min_view_s=min_view_s,
            rates=rates or ErrorRates.none(),
            metrics=Metrics(CollectorRegistry()),
        )
        return cls(desk, store, clock, audit, embed, search, setter, agreements, films, copies)

    def requested(self, **changes: Sequence[str]) -> Case:
        return self.desk.intake.submit(OFFICER, {**FORM, **changes}, [png()])

    def assessed(self, **changes: Sequence[str]) -> Case:
        case = self.requested(**changes)
        return self.assess(self.desk.triage.accept(ANNA, case.request_id, case.version, "Lawful and needed."))

    def assess(self, case: Case) -> Case:
        probe = case.probes[0].probe_id
        return self.desk.probes.assess(
            ANNA, case.request_id, case.version, probe_id=probe, face=0, grade=Suitability.SUITABLE, remarks="Clear."
        )

    def searched(self, **changes: Sequence[str]) -> Case:
        case = self.assessed(**changes)
        probe = case.probes[0].probe_id
        return self.desk.searching(
            ANNA, case.request_id, case.version, probe_id=probe, enhancement_id=None, reason="First search."
        )

    def judged(self, who: Caller, case: Case, matches: frozenset[str] = frozenset()) -> Comparison:
        """Begin, look at and judge everything; `matches` are the subjects held for possible matches."""
        comparison = self.desk.examining.begin(who, case.request_id, self.version(case))
        for candidate in comparison.candidates:
            subject = next(c.subject_id for c in case.candidates if c.candidate_id == candidate.candidate_id)
            comparison = self.judge(who, case, candidate.candidate_id, is_match=subject in matches)
        return comparison

    def judge(self, who: Caller, case: Case, candidate_id: str, *, is_match: bool) -> Comparison:
        self.desk.examining.open(who, case.request_id, candidate_id)
        self.clock.pass_s(6)
        standing = self.desk.examining.comparison(who, case.request_id)
        return self.desk.examining.judge(
            who,
            case.request_id,
            standing.version,
            candidate_id=candidate_id,
            finding=Finding.POSSIBLE_MATCH if is_match else Finding.NO_SUPPORT,
            features=MATCH if is_match else (),
            remarks="Compared feature by feature.",
        )

    def signed(self, who: Caller, case: Case, matches: frozenset[str] = frozenset()) -> Case:
        comparison = self.judged(who, case, matches)
        return self.desk.examining.sign(who, case.request_id, comparison.version)

    def decided(self, matches: frozenset[str] = frozenset({"S2"})) -> Case:
        case = self.searched()
        self.signed(ANNA, case, matches)
        return self.signed(BERT, case, matches)

    def released(self, matches: frozenset[str] = frozenset({"S2"})) -> Case:
        case = self.decided(matches)
        return self.desk.deciding.release(BERT, case.request_id, case.version, date(2026, 12, 1))

    def version(self, case: Case) -> int:
        found = self.store.find(case.request_id)
        assert found is not None
        return found.version
