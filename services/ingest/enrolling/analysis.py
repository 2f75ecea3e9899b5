"""Analysing one accepted image through embed, and telling a broken image from a broken platform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from services.ingest.enrolling import quality
from services.ingest.enrolling.enrolment import REFUSAL_REASONS, Decision, PendingEnrolment, Verdict
from services.ingest.ports import FaceAnalyser
from services.ingest.settings import QualitySettings
from services.rpc.v1.embed_pb2 import AnalyseRequest
from services.shared.biometric import ImageAnalysis
from services.shared.errors import (
    DependencyUnavailable,
    IntegrityError,
    LikenessError,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    PlatformError,
)
from services.shared.ports.image_store import ImageStore

MAX_CRASHES = 2
ANALYSIS_DEADLINE_S = 10.0
# An image that is tried alone, because others failed beside it, gets the time that a busy machine may need.
ALONE_DEADLINE_S = 30.0
_OVERLOAD_PAUSE_S = 0.1
# What embed says of an image that killed a worker of its own. It may be the image or a machine short of memory, so it
# is tried once more before a person has to look.
_CRASHED = "image_decoder_crashed"


class CountsCrashes(Protocol):
    """Of the ledger: `services.ingest.ports.EnrolmentLedger`."""

    def count_crash(self, enrolment_id: str) -> None:
        """Analysing it took the analyser down once more."""
        ...


class Interrupted(Exception):
    """Embed went away or stayed silent while it had this image; which of those under way is to blame is unknown."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """No decision yet; `pending` is the enrolment as it stands now."""

    pending: PendingEnrolment
    pause_s: float


class ImageAnalyst:
    """Turns an accepted enrolment into a decision. Safe for many threads."""

    def __init__(
        self,
        *,
        ledger: CountsCrashes,
        images: ImageStore,
        analyser: FaceAnalyser,
        quality_settings: QualitySettings,
        now_ms: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._images = images
        self._analyser = analyser
        self._quality = quality_settings
        self._now_ms = now_ms

    def decide(self, pending: PendingEnrolment, *, is_alone: bool = False) -> Decision | TryAgain:
        """Raises Interrupted, and PlatformError when the image store or the ledger cannot be used.

        `is_alone` says that nothing else is under way: when embed goes away now, this image is to blame.
        """
        try:
            image = self._images.get(pending.key.image_sha256)
        except NotFound as error:
            return self._close(Verdict.QUARANTINE, "image_missing", error.detail)
        except IntegrityError as error:
            return self._close(Verdict.QUARANTINE, "image_damaged", error.detail)
        deadline_s = ALONE_DEADLINE_S if is_alone else ANALYSIS_DEADLINE_S
        try:
            analysis = self._analyser.analyse(image, AnalyseRequest.LARGEST, timeout_s=deadline_s)
        except Overloaded:
            return TryAgain(pending, _OVERLOAD_PAUSE_S)
        except DependencyUnavailable as error:
            if is_alone:
                return self.count_crash(pending, error.detail)
            raise Interrupted from error
        except PlatformError:
            raise
        except LikenessError as error:
            return self._explain(pending, error)
        return self._judge(pending, analysis)

    def count_crash(self, pending: PendingEnrolment, detail: str) -> Decision | TryAgain:
        """Analysing this image, and no other, failed as no image should make it fail. The second time it is
        quarantined."""
        self._ledger.count_crash(pending.enrolment_id)
        crashes = pending.crashes + 1
        structlog.get_logger().warning("analysis_crashed", enrolment_id=pending.enrolment_id, crashes=crashes)
        if crashes < MAX_CRASHES:
            return TryAgain(replace(pending, crashes=crashes), 0.0)
        return self._close(Verdict.QUARANTINE, "crashes_analysis", f"The analysis failed {crashes} times: {detail}")

    def _judge(self, pending: PendingEnrolment, analysis: ImageAnalysis) -> Decision:
        policy = self._quality.policy(pending.key.owner, pending.key.watchlist_id)
        decision = quality.decide(analysis, policy, self._now_ms())
        if decision.verdict is not Verdict.ENROL or (decision.unified_quality or 0.0) >= policy.warn_unified_quality:
            return decision
        detail = f"Quality {decision.unified_quality:.0f} of 100; {policy.warn_unified_quality:.0f} is wanted."
        return replace(decision, reason="low_quality", detail=detail)

    def _explain(self, pending: PendingEnrolment, error: LikenessError) -> Decision | TryAgain:
        """Embed answered with an error about this image."""
        if isinstance(error, PayloadTooLarge):
            return self._close(Verdict.REFUSE, "image_too_large", error.detail)
        if error.code in REFUSAL_REASONS and error.code != _CRASHED:
            return self._close(Verdict.REFUSE, error.code, error.detail)
        return self.count_crash(pending, error.detail)

    def _close(self, verdict: Verdict, reason: str, detail: str) -> Decision:
        return Decision(verdict, self._now_ms(), reason=reason, detail=detail)
