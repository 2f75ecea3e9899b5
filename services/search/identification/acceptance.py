"""What is decided before anything is done: is the request complete, is it permitted, can it be answered."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import structlog

from services.search.identification.calibration import Calibration
from services.search.identification.operating_points import OperatingPoint, OperatingPoints
from services.search.identification.requests import SearchMode, SearchRequest, parse_request
from services.search.policy import Decision, Rulebook
from services.search.policy.dry_run import RequestRecords
from services.search.ports import NewSearch
from services.search.upkeep.keeper import GalleryKeeper
from services.shared.biometric import ModelProvenance
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailable, Forbidden, ImageRefused, InvalidRequest
from services.shared.ids import new_id
from services.shared.multipart import Upload
from services.shared.tokens import Principal

IMAGE_FIELD = "image"
MAX_KEY_CHARS = 200
# What ends while the outcome is being recorded must not leave: that takes 2 s at most.
ANSWER_MARGIN = timedelta(seconds=3)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request that is complete and permitted, not opened yet. `operating_points` is empty in investigation mode;
    `calibrations` has the watchlists on which scores of this model were measured."""

    principal: Principal
    request: SearchRequest
    probe: bytes
    decision: Decision
    operating_points: Mapping[str, OperatingPoint]
    accepted_at: datetime
    idempotency_key: str | None
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    # The model in service when it was accepted: operating points are its, so the probe is analysed by its embed.
    model_id: str = ""

    def open(self) -> NewSearch:
        """The search as it is to be stored, under new ids. Digests the probe: 1 ms for each MB."""
        return NewSearch(
            search_id=new_id(),
            outcome_entry_id=new_id(),
            principal=self.principal,
            request=self.request,
            probe_sha256=hashlib.sha256(self.probe).hexdigest(),
            probe_size_bytes=len(self.probe),
            opened_at=self.accepted_at,
            idempotency_key=self.idempotency_key,
            policy=self.decision.policy,
        )


class Acceptance:
    """Checks requests. Nothing is stored, recorded or decoded here."""

    def __init__(
        self,
        rules: Rulebook,
        operating_points: OperatingPoints,
        gallery: GalleryKeeper,
        clock: Clock,
        records: RequestRecords | None = None,
    ) -> None:
        self._rules = rules
        self._records = records
        self._operating_points = operating_points
        self._gallery = gallery
        self._clock = clock

    def __call__(self, principal: Principal, upload: Upload, idempotency_key: str | None) -> Accepted:
        """Raises InvalidRequest, ImageRefused (empty), Forbidden; GalleryIncomplete, ModelMismatch, ConfigurationError.

        Errors of the caller come before those of the platform, so that a wrong request is told so at any time.
        """
        now = self._clock.now()
        _check_key(idempotency_key)
        rules = self._rules.current()
        request = parse_request(upload.texts, rules.watchlists)
        probe = _sole_image(upload)
        decision = rules.decide(principal, request, now.date())
        if not decision.is_permitted:
            self._keep_denied(principal, request, decision)
        decision.require()
        model = self._gallery.require_ready()
        points = self._points(request, model)
        calibrations = self._calibrations(request, model)
        return Accepted(
            principal, request, probe, decision, points, now, idempotency_key, calibrations, model.model_id
        )  # fmt: skip

    def decide_again(self, accepted: Accepted) -> Decision:
        """The same decision by what is in force when the answer leaves. Raises Forbidden, ConfigurationError.

        That is a little later than now, so an agreement that ends in between counts as ended.
        """
        decision = self._rules.current().decide(accepted.principal, accepted.request, self._answer_day())
        decision.require()
        return decision

    def require_still(self, accepted: Accepted, decision: Decision) -> None:
        """That what a decision permitted is permitted still. Raises Forbidden, ConfigurationError."""
        if not self.decide_again(accepted).covers(decision):
            raise Forbidden(
                "A permission ended while the search ran, so its answer is not given out.",
                advice="Search again: what is permitted now is searched then.",
                context={"reasons": ["permission_ended"], "policy": decision.policy},
            )

    def permitted_owners(self, accepted: Accepted, watchlist_id: str, owners: frozenset[str]) -> frozenset[str]:
        """Of owners whose references stand in the gallery those who may be searched, each decided by name."""
        rules = self._rules.current()
        return rules.permits(accepted.principal, accepted.request, watchlist_id, owners, self._answer_day())

    def _answer_day(self) -> date:
        return (self._clock.now() + ANSWER_MARGIN).date()

    def _keep_denied(self, principal: Principal, request: SearchRequest, decision: Decision) -> None:
        """For trying changed policies on. The denial stands also where it cannot be kept; the audit log has it."""
        if self._records is None:
            return
        try:
            self._records.denied(new_id(), principal, request, decision)
        except DependencyUnavailable as error:
            structlog.get_logger().warning("denied_request_not_kept", detail=error.detail)

    def _calibrations(self, request: SearchRequest, model: ModelProvenance) -> Mapping[str, Calibration]:
        found = {name: self._operating_points.calibration(model, name) for name in request.watchlists}
        return {name: calibration for name, calibration in found.items() if calibration is not None}

    def _points(self, request: SearchRequest, model: ModelProvenance) -> Mapping[str, OperatingPoint]:
        if request.mode is SearchMode.INVESTIGATION:
            return {}
        points = {name: self._operating_points.find(model, name) for name in request.watchlists}
        missing = [name for name, point in points.items() if point is None]
        if missing:
            raise InvalidRequest(
                f"No threshold was ever set for {', '.join(missing)} with the model {model.model_id}.",
                advice="Search in investigation mode, or have a threshold set with `likeness evaluate`.",
            )
        return {name: point for name, point in points.items() if point is not None}


def part_key(key: str | None, part: str) -> str | None:
    """The key of one search of several that one request with a key stands for. One that is no key stays none."""
    if key is None:
        return None
    own = f"{key}:{part}"
    is_too_long_together = len(key) <= MAX_KEY_CHARS < len(own) and key.isascii() and key.isprintable()
    return f"{hashlib.sha256(key.encode()).hexdigest()}:{part}" if is_too_long_together else own


def _check_key(key: str | None) -> None:
    if key is not None and not (0 < len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"Idempotency-Key must be 1 to {MAX_KEY_CHARS} printable ASCII characters.", advice="Use a UUID."
        )


def _sole_image(upload: Upload) -> bytes:
    images = upload.files.get(IMAGE_FIELD, ())
    if len(images) != 1:
        wrong = "Required." if not images else "Give it once."
        raise InvalidRequest(
            f"Missing or invalid: {IMAGE_FIELD}.",
            advice="Send one image file in this field.",
            context={"fields": [{"field": IMAGE_FIELD, "problem": wrong}]},
        )
    if not images[0]:
        raise ImageRefused("The image is empty.", advice="Send the file again.", code="image_empty")
    return images[0]
