"""Several stills of one face as evidence of one search: stills of a film's track, or of anything that shows one person.

The template that is searched is the mean of the stills' templates, not made a unit vector again. Its dot product with a
reference is therefore exactly the mean of the raw cosines of the stills with that reference: scores are fused by a rule
that can be checked by hand, and stay in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from services.rpc.v1 import embed_pb2
from services.search.identification.faces import selection
from services.shared.biometric import FaceTemplate, ImageAnalysis
from services.shared.errors import DependencyUnavailable, ModelMismatch
from services.shared.ports.image_store import ImageStore

FUSION = "mean of the raw cosines of the stills"


class PendingAnalysis(Protocol):
    """An analysis under way: `services.rpc.clients.PendingAnalysis`."""

    def result(self) -> ImageAnalysis: ...

    def cancel(self) -> None: ...


class Analyser(Protocol):
    """What is needed of `services.rpc.clients.EmbedClient`."""

    def begin(
        self, image: bytes, selection: embed_pb2.AnalyseRequest.Selection.ValueType, face_index: int = 0
    ) -> PendingAnalysis: ...


@dataclass(frozen=True, slots=True)
class Still:
    """A frame as it was cut out, and which of its faces is meant."""

    sha256: str
    content: bytes
    face: int
    frame_number: int
    pts: int
    time_s: float


@dataclass(frozen=True, slots=True)
class FilmEvidence:
    """Stills of one track of a film, the best first: that one is the probe."""

    film_id: str
    film_sha256: str
    track: int
    stills: tuple[Still, ...]

    def document(self) -> dict[str, Any]:
        """As it stands in the answer: enough to cut the same frames out of the film again."""
        return {
            "film_id": self.film_id,
            "sha256": self.film_sha256,
            "track": self.track,
            "fusion": FUSION,
            "frames": [
                {
                    "frame_number": still.frame_number,
                    "pts": still.pts,
                    "time_s": still.time_s,
                    "face": still.face,
                    "still_sha256": still.sha256,
                }
                for still in self.stills
            ],
        }

    def audit_details(self) -> dict[str, str]:
        return {
            "film": self.film_id,
            "film_sha256": self.film_sha256,
            "track": str(self.track),
            "frames": ",".join(str(still.frame_number) for still in self.stills),
        }


def evidence_of(answer: Mapping[str, Any], probes: ImageStore) -> FilmEvidence | None:
    """What a stored answer was found with; None for a search of one still. Raises NotFound, IntegrityError."""
    film = answer.get("film")
    if film is None:
        return None
    stills = tuple(
        Still(
            sha256=frame["still_sha256"],
            content=probes.get(frame["still_sha256"]),
            face=frame["face"],
            frame_number=frame["frame_number"],
            pts=frame["pts"],
            time_s=frame["time_s"],
        )
        for frame in film["frames"]
    )
    return FilmEvidence(film["film_id"], film["sha256"], film["track"], stills)


@runtime_checkable
class SeveralModels(Protocol):
    """Embeds of several models, told apart by name: `services.search.serving.gallery.ServedEmbed`."""

    def running(self, model_id: str) -> Analyser:
        """The one whose templates meet the gallery of this model; the one in service where there is none."""
        ...


def of_model(embed: Analyser, model_id: str) -> Analyser:
    """The embed to make all templates of one search with."""
    return embed.running(model_id) if isinstance(embed, SeveralModels) else embed


def begin_analysis(
    embed: Analyser, probe: bytes, face: int | None, evidence: FilmEvidence | None = None
) -> PendingAnalysis:
    """Begin to analyse a probe, with the other stills of its evidence where there are any."""
    first = embed.begin(probe, selection(face), face or 0)
    if evidence is None:
        return first
    others = [embed.begin(still.content, selection(still.face), still.face) for still in evidence.stills[1:]]
    return _Fused(first, others, [still.face for still in evidence.stills])


class _Fused:
    """The analysis of the first still, the face's template replaced by the mean of all."""

    def __init__(self, first: PendingAnalysis, others: Sequence[PendingAnalysis], faces: Sequence[int]) -> None:
        self._pending = [first, *others]
        self._faces = faces

    def result(self) -> ImageAnalysis:
        """Raises what an analysis raises; ModelMismatch where embed changed its model in between."""
        analyses = [pending.result() for pending in self._pending]
        if len({analysis.model.model_id for analysis in analyses}) > 1:
            raise ModelMismatch("embed changed its model during the search.", advice="Search again.")
        templates = [_template(analysis, face) for analysis, face in zip(analyses, self._faces, strict=True)]
        fused = fuse(templates)
        first, index = analyses[0], self._faces[0]
        faces = tuple(replace(face, template=fused) if at == index else face for at, face in enumerate(first.faces))
        return replace(first, faces=faces)

    def cancel(self) -> None:
        for pending in self._pending:
            pending.cancel()


def fuse(templates: Sequence[FaceTemplate]) -> FaceTemplate:
    """The mean, so that a dot product with it is the mean of the dot products."""
    mean = np.mean([template.vector.astype(np.float64) for template in templates], axis=0)
    return FaceTemplate(mean.astype(np.float32), templates[0].model_id)


def _template(analysis: ImageAnalysis, face: int) -> FaceTemplate:
    template = analysis.faces[face].template if face < len(analysis.faces) else None
    if template is None:
        raise DependencyUnavailable("A still has not the face that it had.", advice="Tell the operators.")
    return template
