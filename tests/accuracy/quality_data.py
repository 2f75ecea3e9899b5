"""Quality, signals and own score of every mated probe as it is and made worse: what the fit of quality stands on.

Kept under LIKENESS_CACHE as it grows, so that it can be stopped and gone on with.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic

import cv2
import numpy as np

from services.embed.adapters.onnxruntime_session import OnnxruntimeSession
from services.embed.faces.analyser import FaceAnalyser, PictureJob
from services.embed.faces.detector import YuNet
from services.embed.faces.finder import FaceFinder
from services.embed.faces.landmarks import LandmarkRefiner
from services.embed.faces.picture import Picture
from services.embed.faces.recogniser import Recogniser
from services.embed.faces.templates import Templater
from services.embed.models.cohort import cohort_mean
from services.embed.models.manifest import load_manifest
from services.embed.models.store import ModelStore
from services.embed.ports import Pixels, Selection, Tensor
from services.embed.settings import DetectionSettings, ModelSettings
from services.local.evaluation.degrade import blur, inter_eye, inter_eye_jpeg, jpeg
from services.local.evaluation.labelled_set import LabelledSet, LabelledStill
from services.shared.biometric import DetectedFace
from services.shared.packages import cache_folder
from tests.accuracy.naive import decode
from tests.accuracy.worse import darkened, hazy, masked, with_dark_glasses

AS_IT_IS = "as it is"
# Each probe is measured as it is and under these many of the others, which ones by its place: all get their share.
WORSE_A_PROBE = 5


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One probe under one condition. `own` is the score of its subject's reference; None where no face is found."""

    name: str
    identity: str
    condition: str
    components: dict[str, float]
    signals: dict[str, float]
    own: float | None
    best_other: float | None


@dataclass
class QualityData:
    """References by name, and what was measured so far by (name, condition)."""

    references: dict[str, Tensor] = field(default_factory=dict)
    measured: dict[tuple[str, str], Measured] = field(default_factory=dict)


def in_process_analyser() -> tuple[FaceAnalyser, FaceFinder]:
    """The very faces part of embed, without its processes."""
    settings, manifest, store = ModelSettings(), load_manifest(), ModelStore(cache_folder())
    detection = DetectionSettings()

    def session(name: str, role: str) -> OnnxruntimeSession:
        model = store.open(manifest.get(name, role))
        return OnnxruntimeSession(model.read(), providers=settings.providers, allow_fallback=False, threads=1)

    entry = manifest.get(settings.recogniser, "recogniser")
    yunet = YuNet(
        session(settings.detector, "detector"),
        score_threshold=detection.score_threshold,
        nms_threshold=detection.nms_threshold,
    )
    recogniser = Recogniser(session(settings.recogniser, "recogniser"), kind=entry.kind, dimension=entry.dimension)
    finder = FaceFinder(yunet, nms_threshold=detection.nms_threshold, max_faces=detection.max_faces)
    templater = Templater(recogniser, cohort_mean(entry))
    return FaceAnalyser(finder, LandmarkRefiner(yunet), templater, "offline", settings.mirror), finder


def collect(labelled: LabelledSet, seconds: float) -> QualityData:
    """Go on measuring for so long, and give what there is."""
    cv2.setNumThreads(1)
    path = cache_folder() / "accuracy" / "quality_data.pickle"
    data: QualityData = pickle.loads(path.read_bytes()) if path.is_file() else QualityData()  # noqa: S301 - our own
    ends_at = monotonic() + seconds
    analyser, _ = in_process_analyser()
    for _ in _steps(labelled, data, analyser):
        if monotonic() > ends_at:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(data))
    return data


def _steps(labelled: LabelledSet, data: QualityData, analyser: FaceAnalyser) -> Iterator[None]:
    for still in labelled.enrolled:
        if still.name not in data.references:
            faces = _analysed(analyser, decode(still.path.read_bytes()), Selection.LARGEST)
            template = next((face.template.vector for face in faces if face.template), None)
            data.references[still.name] = np.zeros(128, np.float32) if template is None else template
            yield
    own_of = {still.identity: data.references[still.name] for still in labelled.enrolled if still.split == "gallery"}
    identities = np.array([still.identity for still in labelled.enrolled])
    gallery = np.stack([data.references[still.name] for still in labelled.enrolled])
    mated = [still for still in labelled.probes if still.identity in own_of]
    for place, still in enumerate(mated):
        wanted = [(still.name, name) for name in conditions_of(place)]
        if all(key in data.measured for key in wanted):
            continue
        versions = _versions(still, analyser)
        for key in wanted:
            if key not in data.measured:
                pixels = versions(key[1])
                scores = gallery, identities
                data.measured[key] = _measure(still, key[1], pixels, analyser, own_of[still.identity], scores)
                yield


def conditions_of(place: int) -> list[str]:
    worse = [name for name in CONDITIONS if name != AS_IT_IS]
    return [AS_IT_IS, *(worse[(place * 3 + step * 2) % len(worse)] for step in range(WORSE_A_PROBE))]


def _versions(still: LabelledStill, analyser: FaceAnalyser) -> Callable[[str], Pixels]:
    file = still.path.read_bytes()
    pixels = decode(file)
    faces = _analysed(analyser, pixels, Selection.NONE)
    face = max(faces, key=_prominence) if faces else None

    def version(condition: str) -> Pixels:
        return pixels if face is None else CONDITIONS[condition](file, pixels, face)

    return version


def _points(face: DetectedFace) -> np.ndarray:
    return np.array(face.landmarks, dtype=np.float64)


Worsen = Callable[[bytes, Pixels, DetectedFace], Pixels]
CONDITIONS: dict[str, Worsen] = {
    AS_IT_IS: lambda _file, pixels, _face: pixels,
    **{
        each.name: lambda file, _pixels, face, each=each: decode(each.apply(file, face.inter_eye_px))  # type: ignore[misc]
        for each in (
            inter_eye(40),
            inter_eye(24),
            inter_eye(16),
            inter_eye(12),
            jpeg(20),
            blur(2),
            blur(4),
            inter_eye_jpeg(24, 20),
            inter_eye_jpeg(16, 20),
        )
    },
    "a tenth of the light": lambda _file, pixels, _face: darkened(pixels, 0.1),
    "a quarter of the contrast": lambda _file, pixels, _face: hazy(pixels),
    "mask": lambda _file, pixels, face: masked(pixels, _points(face)),
    "dark glasses": lambda _file, pixels, face: with_dark_glasses(pixels, _points(face)),
}


def _measure(  # noqa: PLR0917 - once, here
    still: LabelledStill,
    condition: str,
    pixels: Pixels,
    analyser: FaceAnalyser,
    own: Tensor,
    others: tuple[Tensor, np.ndarray],
) -> Measured:
    faces = _analysed(analyser, pixels, Selection.NONE)
    if not faces:
        return Measured(still.name, still.identity, condition, {}, {}, None, None)
    index = max(range(len(faces)), key=lambda place: _prominence(faces[place]))
    face = analyser.analyse([PictureJob(Picture(pixels, 1), Selection.BY_INDEX, index)])[0].faces[index]
    assert face.template is not None
    gallery, identities = others
    return Measured(
        still.name,
        still.identity,
        condition,
        dict(face.quality.components),
        {signal.name: signal.value for signal in face.signals},
        float(face.template.vector @ own),
        float((gallery @ face.template.vector)[identities != still.identity].max()),
    )


def _analysed(analyser: FaceAnalyser, pixels: Pixels, selection: Selection) -> tuple[DetectedFace, ...]:
    return analyser.analyse([PictureJob(Picture(pixels, 1), selection)])[0].faces


def _prominence(face: DetectedFace) -> float:
    return face.box.width * face.box.height * face.detection_score
