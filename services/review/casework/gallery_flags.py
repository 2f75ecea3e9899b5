"""The pictures behind a flag of the gallery, for the custodian who decides on it: shown as candidates are, recorded
before they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.review.casework.caller import Caller
from services.review.casework.pictures import SHOWN_SIDE
from services.review.casework.probes import Picture
from services.review.casework.trail import About, CaseTrail
from services.review.ports import PictureRenderer, ReferenceDirectory
from services.rpc.v1 import reference_pb2
from services.shared.errors import NotFound

SEE_FLAGGED = "see_flagged_reference"
WRONG_SUBJECT = "wrong_subject_suspected"
# Enough to see whom the others show.
MOST_OTHERS = 4


@dataclass(frozen=True, slots=True)
class FlagPicture:
    """One enrolled picture beside the others. `is_flagged`: the flag is about it; else one of the same subject's."""

    reference_id: str
    subject_id: str
    captured_on: str
    is_flagged: bool


class GalleryFlags:
    """Flags are kept by ingest, which gives them to custodians of their owner alone; `flag` is its document of one."""

    def __init__(self, trail: CaseTrail, references: ReferenceDirectory, renderer: PictureRenderer) -> None:
        self._trail = trail
        self._references = references
        self._renderer = renderer

    def pictures(self, caller: Caller, flag: Mapping[str, Any]) -> tuple[FlagPicture, ...]:
        """What there is to compare, flagged ones first: of a picture suspected under the wrong subject also that
        subject's others. What is withdrawn, or has no picture, is not there."""
        flagged = [str(one["reference_id"]) for one in flag["references"]]
        found = [
            FlagPicture(one.reference_id, one.subject_id, one.captured_on, one.reference_id in flagged)
            for subject_id in dict.fromkeys(flag["subject_ids"])
            for one in self._of(caller, flag, subject_id)
            if one.image_sha256
        ]
        others = [one for one in found if not one.is_flagged] if flag["kind"] == WRONG_SUBJECT else []
        return (*(one for one in found if one.is_flagged), *others[:MOST_OTHERS])

    def picture(self, caller: Caller, flag: Mapping[str, Any], reference_id: str) -> Picture:
        """One of those pictures. Raises NotFound for any other, AuditUnavailable."""
        shown = next((one for one in self.pictures(caller, flag) if one.reference_id == reference_id), None)
        if shown is None:
            raise NotFound("There is no such picture.")
        watchlist = str(flag["watchlist"])
        about = About((f"flag:{flag['flag_id']}", f"reference:{reference_id}", f"watchlist:{watchlist}"))
        self._trail.consulted(caller.principal, SEE_FLAGGED, about)
        content = self._references.image(caller.bearer, watchlist, caller.force, shown.subject_id, reference_id)
        made = self._renderer.render(content, max_side=SHOWN_SIDE, as_jpeg=True)
        return Picture(made.content, made.width, made.height)

    def _of(
        self, caller: Caller, flag: Mapping[str, Any], subject_id: str
    ) -> Sequence[reference_pb2.EnrolledReference]:
        try:
            return self._references.references_of(caller.bearer, str(flag["watchlist"]), caller.force, subject_id)
        except NotFound:
            return ()  # withdrawn, or moved to another subject since: the flag lapses
