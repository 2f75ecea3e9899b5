"""Everything that people do in casework, in one place: what entry points are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.review.casework.deciding import Deciding
from services.review.casework.documents import Documents
from services.review.casework.examining import Examining
from services.review.casework.films import Films
from services.review.casework.flagged import FlaggedProbes
from services.review.casework.gallery_flags import GalleryFlags
from services.review.casework.intake import Intake, Pictures
from services.review.casework.looking import Looking
from services.review.casework.pictures import SeePictures
from services.review.casework.probes import Probes, TriageRequests
from services.review.casework.retention import Retention
from services.review.casework.searching import RunSearch
from services.review.casework.steps import Casebook
from services.review.casework.supervision import Supervision
from services.review.casework.trail import CaseTrail
from services.review.casework.training import TrainingCheck
from services.review.error_rates import ErrorRates
from services.review.ports import (
    AgreementRegister,
    AuditTrail,
    DocumentSetter,
    FaceAnalyser,
    FilmReader,
    PictureRenderer,
    ProbeCopies,
    ReferenceDirectory,
    ReviewStore,
    Searcher,
)
from services.review.unsolved.ports import KeptLook
from services.review.uploads import FilmSettings
from services.shared.clock import Clock
from services.shared.ports.image_store import ImageStore
from services.shared.telemetry import Metrics
from services.shared.watchlists import WatchlistFile


@dataclass(frozen=True, slots=True)
class Peers:
    """What casework needs of the other services."""

    audit: AuditTrail
    searcher: Searcher
    references: ReferenceDirectory
    analyser: FaceAnalyser
    renderer: PictureRenderer
    agreements: AgreementRegister
    films: FilmReader
    # None without certificates, by which search knows review: then the copies that search sealed are not erased.
    copies: ProbeCopies | None = None


@dataclass(frozen=True, slots=True)
class Desk:
    """The use cases. Every one takes a Caller first and is safe for several threads."""

    intake: Intake
    triage: TriageRequests
    films: Films
    probes: Probes
    searching: RunSearch
    flagged: FlaggedProbes
    examining: Examining
    deciding: Deciding
    retention: Retention
    looking: Looking
    pictures: SeePictures
    gallery_flags: GalleryFlags
    documents: Documents
    supervision: Supervision
    trail: CaseTrail

    @classmethod
    def make(
        cls,
        *,
        store: ReviewStore,
        images: ImageStore,
        peers: Peers,
        watchlists: WatchlistFile,
        setter: DocumentSetter,
        clock: Clock,
        min_view_s: float,
        rates: ErrorRates,
        metrics: Metrics,
        kept_look: Callable[[str], KeptLook | None] | None = None,
        film_settings: FilmSettings | None = None,
    ) -> Desk:
        trail = CaseTrail(peers.audit, store, clock, metrics)
        book = Casebook(store, trail, clock)
        training = TrainingCheck(store, clock)
        pictures = Pictures(peers.analyser, peers.renderer, images)
        searching = RunSearch(book, images, peers.searcher, peers.analyser)
        return cls(
            intake=Intake(book, pictures, watchlists),
            triage=TriageRequests(book, watchlists, peers.agreements),
            films=Films(book, images, pictures, peers.films, film_settings or FilmSettings()),
            probes=Probes(book, images),
            searching=searching,
            flagged=FlaggedProbes(book),
            examining=Examining(book, training, peers.references, min_view_s),
            deciding=Deciding(book, training, watchlists, peers.agreements, rates),
            retention=Retention(book, images, searching, peers.copies),
            looking=Looking(book, kept_look),
            pictures=SeePictures(book, images, peers.references, peers.renderer, peers.analyser),
            gallery_flags=GalleryFlags(trail, peers.references, peers.renderer),
            documents=Documents(book, images, peers.references, peers.renderer, setter),
            supervision=Supervision(book),
            trail=trail,
        )
