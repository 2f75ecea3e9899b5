"""Searches probes through the REST API, as an operator's system does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from services.local.evaluation.enrolment import EnrolledGallery
from services.local.evaluation.labelled_set import LabelledStill
from services.local.evaluation.records import ListedSubject, ProbeResult, judge, not_acquired
from services.local.evaluation.target import Target
from services.shared.errors import DependencyUnavailable

LIST_LENGTH = 50
_TIMEOUT_S = 30.0
_PATIENCE_S = 60.0
_PAUSE_S = 0.5
_CONCURRENCY = 2
_BUSY = frozenset({408, 429, 503})
_FACE_CHOICE = "face_choice_needed"


@dataclass(frozen=True, slots=True)
class Probe:
    """A still to search and the bytes to send; None where the picture could not be made."""

    still: LabelledStill
    image: bytes | None
    is_mated: bool


class ProbeSearcher:
    """Searches through one platform. Safe for several threads."""

    def __init__(self, target: Target, gallery: EnrolledGallery, purpose: str) -> None:
        self._target = target
        self._gallery = gallery
        self._purpose = purpose
        self._http = httpx.Client(base_url=target.search_url, timeout=_TIMEOUT_S, trust_env=False)
        self.model: dict[str, Any] = {}
        self.gallery_name = ""

    def close(self) -> None:
        self._http.close()

    def search_all(self, probes: Sequence[Probe], advance: Callable[[int], None]) -> tuple[ProbeResult, ...]:
        def one(probe: Probe) -> ProbeResult:
            result = self.search(probe)
            advance(1)
            return result

        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="evaluate") as pool:
            return tuple(pool.map(one, probes))

    def search(self, probe: Probe) -> ProbeResult:
        """Search one probe; of several faces the most prominent. A problem is a failure to acquire.

        Raises DependencyUnavailable when the platform does not answer, or refuses the evaluation itself.
        """
        if probe.image is None:
            return not_acquired(probe.still, "image_undecodable", is_mated=probe.is_mated)
        answer = self._post(probe.image, None)
        if answer.status_code == 409 and answer.json()["code"] == _FACE_CHOICE:
            answer = self._post(probe.image, most_prominent(answer.json()["faces"]))
        if answer.status_code == 200:
            return self._judge(probe, answer.json())
        if answer.status_code == 422:
            return not_acquired(probe.still, str(answer.json()["code"]), is_mated=probe.is_mated)
        raise DependencyUnavailable(
            f"{probe.still.name} could not be searched: {answer.status_code} {answer.text[:300]}",
            advice="Mend what it names; the evaluation cannot go on without an answer to every probe.",
        )

    def _judge(self, probe: Probe, answer: dict[str, Any]) -> ProbeResult:
        self.model, self.gallery_name = answer["model"], answer["gallery"]
        face = answer["faces"][answer["face"]]
        return judge(
            probe.still,
            [self._listed(candidate) for candidate in answer["candidates"]],
            is_mated=probe.is_mated,
            quality=face["quality"]["unified"],
            inter_eye_px=face["inter_eye_px"],
            faces=len(answer["faces"]),
        )

    def _listed(self, candidate: dict[str, Any]) -> ListedSubject:
        identity = self._gallery.identity_of.get(candidate["subject_id"], candidate["subject_id"])
        stills = self._gallery.stills_of.get(identity, ())
        return ListedSubject(identity, candidate["score"], stills[0].name if stills else "")

    def _post(self, image: bytes, face: int | None) -> httpx.Response:
        fields: dict[str, Any] = {
            "case_reference": "EVALUATION",
            "purpose": self._purpose,
            "offence": "none: measurement of the model",
            "source": "other",
            "watchlists": [self._gallery.watchlist],
            "mode": "investigation",
            "max_candidates": str(LIST_LENGTH),
        }
        if face is not None:
            fields["face"] = str(face)
        gives_up_at_s = time.monotonic() + _PATIENCE_S
        while True:
            # Read each time: the token of a long run is renewed meanwhile.
            token = self._target.operator_token.read_text("utf-8").strip()
            try:
                answer = self._http.post(
                    "/v1/searches",
                    data=fields,
                    files={"image": ("probe", image, "application/octet-stream")},
                    headers={"Authorization": f"Bearer {token}"},
                )
            except httpx.TransportError as error:
                why = f"{self._target.search_url} does not answer ({type(error).__name__})."
            else:
                if answer.status_code not in _BUSY:
                    return answer
                why = answer.text[:300]
            if time.monotonic() > gives_up_at_s:
                raise DependencyUnavailable(why, advice="Look at the platform's logs.")
            time.sleep(_PAUSE_S)


def most_prominent(faces: Sequence[dict[str, Any]]) -> int:
    """The index of the face with the largest area weighed by the detector's score, as enrolment chooses its subject."""
    return int(
        max(faces, key=lambda face: face["box"]["width"] * face["box"]["height"] * face["detection_score"])["index"]
    )
