from __future__ import annotations

import numpy as np
import pytest

from services.search.identification.evidence import FilmEvidence, Still, begin_analysis, fuse
from services.shared.biometric import Box, DetectedFace, FaceTemplate, ImageAnalysis, ImageInfo, Quality
from services.shared.errors import DependencyUnavailable, ModelMismatch
from tests.integration.search.peers import MODEL_ID, face_of, provenance, vector_of


def unit(seed: int) -> FaceTemplate:
    vector = np.random.default_rng(seed).standard_normal(128)
    return FaceTemplate((vector / np.linalg.norm(vector)).astype(np.float32), MODEL_ID)


def test_a_dot_product_with_the_fused_template_is_the_mean_of_the_scores() -> None:
    templates = [unit(1), unit(2), unit(3)]
    reference = unit(4).vector
    scores = [float(template.vector @ reference) for template in templates]
    assert float(fuse(templates).vector @ reference) == pytest.approx(np.mean(scores), abs=1e-6)
    assert fuse(templates[:1]).vector == pytest.approx(templates[0].vector)


class Embed:
    """Gives each image the faces that its bytes name."""

    def __init__(self, models: dict[bytes, str] | None = None, without_template: bytes = b"") -> None:
        self.models = models or {}
        self.without_template = without_template
        self.asked: list[tuple[bytes, int]] = []

    def begin(self, image: bytes, selection: object, face_index: int = 0) -> Pending:
        self.asked.append((image, face_index))
        names = image.decode().split(",")
        model_id = self.models.get(image, MODEL_ID)
        faces = [face_of(name, index, model_id) for index, name in enumerate(names)]
        if image == self.without_template:
            faces = [DetectedFace(Box(0, 0, 1, 1), (), 0.9, 20.0, Quality(50, {}), None) for _ in faces]
        return Pending(ImageAnalysis(ImageInfo("PNG", 1, 1, 1, 1, 1), tuple(faces), provenance(model_id), {}))


class Pending:
    def __init__(self, analysis: ImageAnalysis) -> None:
        self._analysis = analysis
        self.is_cancelled = False

    def result(self) -> ImageAnalysis:
        return self._analysis

    def cancel(self) -> None:
        self.is_cancelled = True


def evidence(*stills: tuple[bytes, int]) -> FilmEvidence:
    return FilmEvidence(
        "film",
        "0" * 64,
        3,
        tuple(Still("s", content, face, n, n * 10, n / 10) for n, (content, face) in enumerate(stills)),
    )


def test_only_the_searched_face_gets_the_fused_template() -> None:
    embed = Embed()
    analysis = begin_analysis(embed, b"bob,ann", 1, evidence((b"bob,ann", 1), (b"ann", 0), (b"ann,x,y", 0))).result()
    assert embed.asked == [(b"bob,ann", 1), (b"ann", 0), (b"ann,x,y", 0)]
    template = analysis.faces[1].template
    assert template is not None
    assert float(template.vector @ vector_of("ann")) == pytest.approx(1.0, abs=1e-5)
    assert analysis.faces[0].template is not None
    assert analysis.faces[0].template.vector == pytest.approx(vector_of("bob"))


def test_another_model_in_between_ends_the_search() -> None:
    pending = begin_analysis(Embed({b"ann": "other"}), b"bob", 0, evidence((b"bob", 0), (b"ann", 0)))
    with pytest.raises(ModelMismatch):
        pending.result()


def test_a_still_without_its_face_ends_the_search() -> None:
    for stills in ((b"bob", 0), (b"ann", 0)), ((b"bob", 0), (b"x", 5)):
        with pytest.raises(DependencyUnavailable):
            begin_analysis(Embed(without_template=b"ann"), b"bob", 0, evidence(*stills)).result()


def test_without_evidence_an_analysis_is_that_of_a_still() -> None:
    embed = Embed()
    assert begin_analysis(embed, b"ann", None).result().faces[0].template is not None
    assert embed.asked == [(b"ann", 0)]


def test_every_frame_is_named() -> None:
    named = evidence((b"bob", 0), (b"ann", 1))
    assert [frame["frame_number"] for frame in named.document()["frames"]] == [0, 1]
    assert named.audit_details()["frames"] == "0,1"
