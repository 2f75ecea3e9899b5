"""What a search costs without a platform: the fast path in one process, and the usual naive way beside it.

Both decode the same JPEG, find the face, make the template and scan the same gallery, with one thread. Neither has a
ledger, an audit log, a policy, or a process border: they are the floor that the platform is measured against.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import faiss
import numpy as np
import numpy.typing as npt
import simplejpeg

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
from services.embed.ports import Selection
from tests.bench.networks import RECOGNISER

Matrix = npt.NDArray[np.float32]


def one_thread() -> None:
    """What is measured here runs on one thread; call it before the first path is made."""
    cv2.setNumThreads(1)
    faiss.omp_set_num_threads(1)


def synthetic_gallery(count: int, dimension: int = 128, seed: int = 1) -> Matrix:
    """Unit vectors; what they are like does not change the time of an exact scan."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


class FastPath:
    """simplejpeg, the prepared networks on onnxruntime with one thread, faiss flat.

    It makes the very templates that the platform makes, by the same code, so both do the same work.
    """

    def __init__(self, detector: bytes, recogniser: bytes, gallery: Matrix) -> None:
        providers = ["CPUExecutionProvider"]
        yunet = YuNet(OnnxruntimeSession(detector, providers=providers), score_threshold=0.6, nms_threshold=0.3)
        sface = Recogniser(OnnxruntimeSession(recogniser, providers=providers), kind="sface", dimension=128)
        self._analyser = FaceAnalyser(
            FaceFinder(yunet, nms_threshold=0.3, max_faces=256),
            LandmarkRefiner(yunet),
            Templater(sface, cohort_mean(load_manifest().get(RECOGNISER, "recogniser"))),
            "fast path",
            "reference",
        )
        self._index = faiss.IndexFlatIP(gallery.shape[1])
        self._index.add(gallery)

    def template(self, jpeg: bytes, selection: Selection = Selection.SOLE) -> Matrix:
        """The template of a probe; with LARGEST that of a reference."""
        picture = Picture(simplejpeg.decode_jpeg(jpeg, colorspace="BGR"), 1)
        for face in self._analyser.analyse([PictureJob(picture, selection)])[0].faces:
            if face.template is not None:
                return face.template.vector[None, :]
        raise ValueError("the picture has not one face")

    def search(self, jpeg: bytes) -> None:
        self._index.search(self.template(jpeg), 20)


class NaivePath:
    """The usual script: OpenCV decodes, FaceDetectorYN, FaceRecognizerSF, and a numpy product with the gallery.

    OpenCV 5 does not run the recogniser's file as published (its inputs dangle), so it gets the prepared one: the same
    weights, and faster than OpenCV ran the published file.
    """

    def __init__(self, detector: Path, recogniser: Path, gallery: Matrix) -> None:
        self._detector = cv2.FaceDetectorYN.create(str(detector), "", (320, 320), 0.6, 0.3, 5000)
        self._recogniser = cv2.FaceRecognizerSF.create(str(recogniser), "")
        self._gallery = gallery

    def search(self, jpeg: bytes) -> None:
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        self._detector.setInputSize((picture.shape[1], picture.shape[0]))
        _, faces = self._detector.detect(picture)
        aligned = self._recogniser.alignCrop(picture, faces[0])
        template = self._recogniser.feature(aligned)[0]
        scores = self._gallery @ (template / np.linalg.norm(template))
        np.argsort(-scores)[:20]


class MemoryRead:
    """The floor of an exact scan: read every float of the gallery once."""

    def __init__(self, gallery: Matrix) -> None:
        self._gallery = gallery.reshape(-1)

    def read(self) -> None:
        self._gallery.sum()
