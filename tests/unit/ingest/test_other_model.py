"""Stored images looked at by a candidate: what each failure costs, and whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from services.ingest.enrolling.analysis import ImageAnalyst
from services.ingest.migrating.embedding import EmbedWithOtherModel
from services.ingest.migrating.embeds import BaseEmbed, Embeds
from services.ingest.migrating.migration import MigrationState
from services.ingest.migrating.watch import MigrationWatch
from services.ingest.migrating.wiring import NoCrashCount
from services.ingest.ports import FaceAnalyser
from services.ingest.settings import MigrationSettings, QualitySettings
from services.rpc.v1 import embed_pb2, ingest_pb2, search_pb2
from services.shared.biometric import (
    Box,
    DetectedFace,
    FaceTemplate,
    ImageAnalysis,
    ImageInfo,
    ModelProvenance,
    Quality,
)
from services.shared.errors import (
    DependencyUnavailable,
    GalleryIncomplete,
    ImageRefused,
    LikenessError,
    ModelMismatch,
    NotFound,
)
from services.shared.telemetry import Metrics
from tests.contract.test_enrolment_ledger import LATER, MODEL, open_ledgers
from tests.contract.test_model_templates import SECOND, Side
from tests.unit.search.fakes import ManualClock

GOOD, NO_FACE, BAD, KILLER, GONE = (name * 64 for name in "abcde")


class Embed:
    """What it says depends on the image."""

    def __init__(self, model: ModelProvenance) -> None:
        self.model = model
        self.error: LikenessError | None = None
        self.asked = 0

    def analyse(
        self, image: bytes, selection: embed_pb2.AnalyseRequest.Selection.ValueType, *, timeout_s: float
    ) -> ImageAnalysis:
        self.asked += 1
        name = image.decode()
        if self.error is not None:
            raise self.error
        if name == BAD:
            raise ImageRefused("It cannot be read.", code="image_undecodable")
        if name == KILLER:
            raise DependencyUnavailable("embed went away")
        vector = np.array([0, 1, 0, 0], dtype=np.float32)
        face = DetectedFace(
            Box(10, 10, 80, 80), (), 0.99, 2.0, Quality(1.0, {}), FaceTemplate(vector, self.model.model_id)
        )
        return ImageAnalysis(ImageInfo("JPEG", 100, 100, 1, 1, 1), () if name == NO_FACE else (face,), self.model, {})

    def describe_model(self) -> ModelProvenance:
        if self.error is not None:
            raise self.error
        return self.model


class Gallery:
    def __init__(self) -> None:
        self.batches: list[ingest_pb2.ReferenceBatch] = []
        self.error: LikenessError | None = None

    def put(self, batch: ingest_pb2.ReferenceBatch) -> search_pb2.PutReferencesResponse:
        if self.error is not None:
            raise self.error
        self.batches.append(batch)
        return search_pb2.PutReferencesResponse()

    def withdraw(self, reference_ids: list[str], versions: list[int]) -> int:
        raise AssertionError("nothing is withdrawn here")


class Images:
    """Every image is its own name."""

    def get(self, sha256: str) -> bytes:
        if sha256 == GONE:
            raise NotFound("There is no such image.")
        return sha256.encode()

    def put(self, content: bytes) -> str:
        raise AssertionError

    def has(self, sha256: str) -> bool:
        return sha256 != GONE

    def remove(self, sha256: str) -> None:
        raise AssertionError


class Scene:
    def __init__(self, side: Side, state: MigrationState = MigrationState.EMBEDDING) -> None:
        self.side = side
        side.migration(state)
        self.first, self.second, self.gallery, self.clock = Embed(MODEL), Embed(SECOND), Gallery(), ManualClock()
        self.completed = 0
        self.registry = CollectorRegistry()
        self.watch = MigrationWatch(side.migrations, side.templates, Metrics(self.registry))
        self.embedding = EmbedWithOtherModel(
            migrations=side.migrations,
            templates=side.templates,
            embeds=Embeds([self.first, self.second]),
            gallery=self.gallery,
            analyst_of=self._analyst,
            on_made=self.watch.made,
            on_complete=self._complete,
            clock=self.clock,
            settings=MigrationSettings(images_per_s=10, batch=2),
        )

    def _analyst(self, embed: FaceAnalyser) -> ImageAnalyst:
        return ImageAnalyst(
            ledger=NoCrashCount(),
            images=Images(),
            analyser=embed,
            quality_settings=QualitySettings.model_validate(
                {"default": {"min_inter_eye_px": 0, "min_unified_quality": 0}}
            ),
            now_ms=lambda: LATER,
        )

    def _complete(self) -> None:
        self.completed += 1

    def seen(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"likeness_ingest_migration_{name}", labels)

    def run(self) -> None:
        """Until nothing is left, at most so many turns."""
        for _ in range(20):
            self.embedding.step()
            if self.completed:
                return
        raise AssertionError(f"not complete: {self.side.templates.progress('m2')}")


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    for ledgers in open_ledgers(f"sqlite:///{tmp_path / 'ingest.sqlite'}"):
        made = Side(ledgers)
        yield made
        made.committer.close()


def test_every_image_has_a_template_or_a_reason(side: Side) -> None:
    for number, image in enumerate((GOOD, NO_FACE, BAD, KILLER, GONE)):
        side.enrolled(image, f"S{number}")
    scene = Scene(side)
    scene.run()
    progress = side.templates.progress("m2")
    assert (progress.enrolled, progress.embedded, progress.is_complete) == (5, 1, True)
    assert progress.lost_by_reason == {
        "no_face_found": 1,
        "image_undecodable": 1,
        "crashes_analysis": 1,
        "image_missing": 1,
    }
    [batch] = scene.gallery.batches
    assert (batch.model_id, len(batch.reference_ids)) == ("m2", 1)
    scene.watch.step()
    assert scene.seen("references", state="lost") == scene.seen("images_total", outcome="lost") == 4.0
    assert scene.seen("references", state="embedded") == scene.seen("images_total", outcome="embedded") == 1.0
    assert scene.seen("references", state="missing") == 0.0


def test_no_migration_is_open_and_none_is_told_of(side: Side) -> None:
    scene = Scene(side, MigrationState.FINISHED)
    scene.watch.step()
    assert scene.seen("references", state="missing") is None


def test_the_rate_is_bounded(side: Side) -> None:
    for number in range(3):
        side.enrolled(f"{number:064d}", f"S{number}")
    scene = Scene(side)
    assert scene.embedding.step() == pytest.approx(0.2)  # two images, ten a second, in no time
    assert scene.embedding.step() == pytest.approx(0.1)


def test_a_candidate_that_is_away_loses_nothing(side: Side) -> None:
    side.enrolled(GOOD)
    scene = Scene(side)
    scene.second.error = DependencyUnavailable("away")
    with pytest.raises(DependencyUnavailable):
        scene.embedding.step()
    assert side.templates.progress("m2").lost == 0
    scene.second.error = None
    scene.run()
    assert side.templates.progress("m2").embedded == 1


def test_a_candidate_that_became_another_model_is_not_taken_for_the_one_that_was_meant(side: Side) -> None:
    side.enrolled(GOOD)
    scene = Scene(side)
    scene.second.model = replace(SECOND, model_id="m3")
    with pytest.raises(DependencyUnavailable):
        scene.embedding.step()
    assert side.templates.progress("m2").embedded == 0


def test_what_the_gallery_did_not_take_is_put_again(side: Side) -> None:
    side.enrolled(GOOD)
    scene = Scene(side)
    scene.gallery.error = GalleryIncomplete("loading")
    with pytest.raises(GalleryIncomplete):
        scene.embedding.step()
    assert side.templates.progress("m2").not_in_gallery == 1
    scene.gallery.error = None
    scene.run()
    assert scene.second.asked == 1  # what was made is in the ledger


def test_before_the_switch_an_enrolment_does_not_depend_on_the_candidate(side: Side) -> None:
    enrolment_id = side.enrolled(GOOD)
    scene = Scene(side, MigrationState.SHADOWING)
    scene.second.error = DependencyUnavailable("away")
    scene.embedding.ensure([enrolment_id])
    scene.second.error = None
    scene.embedding.ensure([enrolment_id])  # not asked again so soon
    assert scene.second.asked == 0
    scene.clock.pass_(31)
    scene.embedding.ensure([enrolment_id])
    assert side.templates.progress("m2").is_complete


@pytest.mark.parametrize("state", [MigrationState.SWITCHED, MigrationState.FINISHED])
def test_once_the_candidate_answers_searches_nothing_is_enrolled_without_it(side: Side, state: MigrationState) -> None:
    enrolment_id = side.enrolled(GOOD)
    scene = Scene(side, state)
    for error in (DependencyUnavailable("away"), ModelMismatch("other")):
        scene.second.error = error
        with pytest.raises(type(error)):
            scene.embedding.ensure([enrolment_id])
    scene.second.error = None
    scene.gallery.error = GalleryIncomplete("loading")
    with pytest.raises(GalleryIncomplete):
        scene.embedding.ensure([enrolment_id])
    scene.gallery.error = None
    scene.embedding.ensure([enrolment_id])
    assert len(scene.gallery.batches) == 1


class Base:
    def __init__(self, model_id: str | None) -> None:
        self.model_id = model_id

    def base_model_id(self) -> str | None:
        return self.model_id


def test_the_embed_of_the_ledger_s_own_model_is_found_whichever_address_it_has() -> None:
    first, second, base = Embed(MODEL), Embed(SECOND), Base(None)
    embed = BaseEmbed(Embeds([first, second]), base)
    assert embed.describe_model().model_id == "m1"
    base.model_id = "m2"
    assert embed.describe_model().model_id == "m2"
    embed.analyse(GOOD.encode(), embed_pb2.AnalyseRequest.LARGEST, timeout_s=1)
    assert (first.asked, second.asked) == (0, 1)
    second.error = DependencyUnavailable("away")
    with pytest.raises(DependencyUnavailable):
        embed.describe_model()
    # After a restart it is looked for before the first image, and none is given to a former model.
    restarted = BaseEmbed(Embeds([first, second]), base)
    with pytest.raises(DependencyUnavailable):
        restarted.analyse(GOOD.encode(), embed_pb2.AnalyseRequest.LARGEST, timeout_s=1)
    assert first.asked == 0


def test_a_lone_embed_is_not_asked_for_its_model_before_every_image() -> None:
    class Counting(Embed):
        described = 0

        def describe_model(self) -> ModelProvenance:
            self.described += 1
            return super().describe_model()

    lone = Counting(MODEL)
    embed = BaseEmbed(Embeds([lone]), Base(None))
    embed.analyse(GOOD.encode(), embed_pb2.AnalyseRequest.LARGEST, timeout_s=1)
    assert (lone.asked, lone.described) == (1, 0)
