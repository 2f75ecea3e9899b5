"""Pictures, shown to whoever may see them and recorded before they are: never the bytes that came from outside."""

from __future__ import annotations

from services.review import enhancement
from services.review.casework.caller import Caller
from services.review.casework.copies import chosen, on_working_copy, same_face
from services.review.casework.intake import probe_face
from services.review.casework.probes import Picture
from services.review.casework.steps import Casebook, not_found
from services.review.casework.trail import About
from services.review.model import CandidateForJudgement, Case, CaseState, ProbeFace
from services.review.ports import FaceAnalyser, PictureRenderer, ReferenceDirectory
from services.review.workflow import OPERATOR, SUPERVISOR
from services.rpc.v1 import embed_pb2
from services.shared.ports.image_store import ImageStore

SEE_PROBE, SEE_REFERENCE = "see_probe", "see_reference"
ORIGINAL = "original"
SHOWN_SIDE = 1600  # pixels; what a screen shows, and what a candidate is compared by
# Before candidates are being judged nobody looks at them.
_WITH_CANDIDATES = frozenset(CaseState) - {
    CaseState.RECEIVED,
    CaseState.RETURNED,
    CaseState.ACCEPTED,
    CaseState.UNSUITABLE,
    CaseState.ASSESSED,
    CaseState.FLAGGED,
    CaseState.SEARCHED,
    CaseState.WITHDRAWN,
}


class SeePictures:
    """Gives out pictures as JPEGs of the platform's own making, after the consultation is in the log."""

    def __init__(
        self,
        book: Casebook,
        images: ImageStore,
        references: ReferenceDirectory,
        renderer: PictureRenderer,
        analyser: FaceAnalyser,
    ) -> None:
        self._book = book
        self._images = images
        self._references = references
        self._renderer = renderer
        self._analyser = analyser

    def probe(self, caller: Caller, request_id: str, probe_id: str, variant: str = ORIGINAL) -> Picture:
        """A probe as received ("original", by its working copy) or an enhanced copy (its id). Raises NotFound."""
        book = self._book
        with book.refusals(caller, SEE_PROBE, request_id):
            case = book.working(caller, request_id, OPERATOR, SUPERVISOR)
            sha256, width, height = _stored(case, probe_id, variant)
        book.trail.consulted(caller.principal, SEE_PROBE, About.case(case, f"picture:{sha256}"))
        return Picture(enhancement.as_jpeg(self._images.get(sha256)), width, height)

    def chosen_face(
        self, caller: Caller, request_id: str, probe_id: str, variant: str
    ) -> tuple[Picture, ProbeFace | None]:
        """A picture of the probe and where the chosen face is in it, in its own pixels: a recipe may have turned or cut
        an enhanced copy. None where it is not to be found there. Raises NotFound."""
        picture = self.probe(caller, request_id, probe_id, variant)
        probe = self._book.working(caller, request_id, OPERATOR, SUPERVISOR).probe(probe_id)
        if probe is None:
            raise not_found()
        made = next((one for one in probe.enhancements if one.enhancement_id == variant), None)
        if made is not None:
            return picture, same_face(probe, made, self._faces(picture.content))
        face = chosen(probe)
        return picture, on_working_copy(probe, face) if face is not None else None

    def reference(self, caller: Caller, request_id: str, candidate_id: str, reference_id: str) -> Picture:
        """An enrolled image of a candidate, for those who judge or decide the case. Raises NotFound."""
        content = self._enrolled(caller, request_id, candidate_id, reference_id)
        made = self._renderer.render(content, max_side=SHOWN_SIDE, as_jpeg=True)
        return Picture(made.content, made.width, made.height)

    def reference_faces(
        self, caller: Caller, request_id: str, candidate_id: str, reference_id: str
    ) -> tuple[ProbeFace, ...]:
        """Where the faces of that picture are, in its own pixels; largest first."""
        content = self._enrolled(caller, request_id, candidate_id, reference_id)
        return self._faces(self._renderer.render(content, max_side=SHOWN_SIDE, as_jpeg=True).content)

    def _faces(self, content: bytes) -> tuple[ProbeFace, ...]:
        found = self._analyser.analyse(content, embed_pb2.AnalyseRequest.NONE).faces
        faces = [probe_face(index, face) for index, face in enumerate(found)]
        return tuple(sorted(faces, key=lambda face: -face.box[2] * face.box[3]))

    def _enrolled(self, caller: Caller, request_id: str, candidate_id: str, reference_id: str) -> bytes:
        book = self._book
        with book.refusals(caller, SEE_REFERENCE, request_id):
            case = book.working(caller, request_id, OPERATOR, SUPERVISOR)
            candidate = self._visible(caller, case, candidate_id)
        about = About.case(case, f"reference:{reference_id[:36]}", f"watchlist:{candidate.watchlist}")
        book.trail.consulted(caller.principal, SEE_REFERENCE, about)
        return self._references.image(
            caller.bearer, candidate.watchlist, candidate.owner, candidate.subject_id, reference_id
        )

    def _visible(self, caller: Caller, case: Case, candidate_id: str) -> CandidateForJudgement:
        """Examiners see the candidates of their case; others once both judgements are signed."""
        candidate = case.candidate(candidate_id)
        if candidate is None or case.state not in _WITH_CANDIDATES:
            raise not_found()
        examinations = self._book.store.examinations(case.request_id)
        are_signed = len([one for one in examinations if one.signature is not None]) >= 2
        if not are_signed and all(one.examiner != caller.person_id for one in examinations):
            raise not_found()
        return candidate


def _stored(case: Case, probe_id: str, variant: str) -> tuple[str, int, int]:
    probe = case.probe(probe_id)
    if probe is None:
        raise not_found()
    if variant == ORIGINAL:
        return probe.working_sha256, probe.working_width, probe.working_height
    for made in probe.enhancements:
        if made.enhancement_id == variant:
            return made.sha256, made.width, made.height
    raise not_found()
