"""What accelerators are given instead of the prepared networks, held against them on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from services.embed.adapters.onnxruntime_session import CPU, OnnxruntimeSession
from services.embed.adapters.padded_batches import PaddedBatches
from services.embed.adapters.session_per_shape import SessionPerShape
from services.embed.faces.detector import YuNet
from services.embed.faces.landmarks import LandmarkRefiner
from services.embed.faces.picture import Picture
from services.embed.faces.recogniser import SIDE, Recogniser, alignment
from services.embed.models.accelerated import take_pixels
from services.embed.models.store import PreparedModel
from services.embed.ports import Pixels, Tensor


class Doubler:
    """A network that doubles, and remembers how many it was given."""

    provider = "test"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, batch: Pixels | Tensor) -> Mapping[str, Tensor]:
        self.batches.append(len(batch))
        return {"doubled": np.asarray(batch, np.float32) * 2}


@pytest.mark.parametrize(("count", "run"), [(1, 1), (2, 4), (4, 4), (5, 8), (8, 8), (9, 9)])
def test_batches_are_filled_up_to_a_known_size(count: int, run: int) -> None:
    network = Doubler()
    batch = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    output = PaddedBatches(network, (8, 1, 4)).run(batch)["doubled"]
    np.testing.assert_array_equal(output, batch * 2)
    assert network.batches == [run]


def test_each_known_shape_has_a_session_of_its_own_and_the_rest_goes_to_the_other() -> None:
    opened: list[Doubler] = []
    other = Doubler()

    def opener() -> Doubler:
        opened.append(Doubler())
        return opened[-1]

    network = SessionPerShape(opener, [(1, 2), (4, 2)], np.float32, other)
    for shape in ((1, 2), (4, 2), (1, 2), (3, 2)):
        assert network.run(np.ones(shape, np.float32))["doubled"].shape == shape
    # Each was run once when it was opened.
    assert [session.batches for session in opened] == [[1, 1, 1], [4, 4]]
    assert other.batches == [3]


@pytest.fixture(scope="module")
def crops(prepared_models: dict[str, PreparedModel], some_faces: list[Path]) -> list[Pixels]:
    """Aligned real faces."""
    found = []
    detector = _detector(prepared_models)
    for path in some_faces[:12]:
        picture = np.asarray(cv2.imread(str(path)), np.uint8)
        found += [Picture(picture, 1).aligned(alignment(face.landmarks), SIDE) for face in detector.detect(picture)[:1]]
    return found


def _detector(prepared_models: dict[str, PreparedModel]) -> YuNet:
    session = OnnxruntimeSession(prepared_models["detector"].read(), providers=[CPU])
    return YuNet(session, score_threshold=0.6, nms_threshold=0.3)


@pytest.mark.parametrize("kind", ["sface", "arcface"])
def test_a_network_that_takes_pixels_gives_the_same_vectors(
    prepared_models: dict[str, PreparedModel], crops: list[Pixels], kind: str
) -> None:
    prepared = prepared_models["recogniser"].read()
    scale, mean = {"sface": (1.0, 0.0), "arcface": (1 / 127.5, 127.5)}[kind]
    usual = Recogniser(OnnxruntimeSession(prepared, providers=[CPU]), kind=kind, dimension=128)
    changed = OnnxruntimeSession(take_pixels(prepared, scale=scale, mean=mean), providers=[CPU])
    accelerated = Recogniser(PaddedBatches(changed, (4, 8)), kind=kind, dimension=128, takes_pixels=True)
    cosines = (usual.vectors(crops) * accelerated.vectors(crops)).sum(axis=1)
    assert len(crops) > 8
    assert cosines.min() > 0.99999


def test_looks_at_several_faces_in_one_run_are_the_looks_at_each(
    prepared_models: dict[str, PreparedModel], some_faces: list[Path]
) -> None:
    detector = _detector(prepared_models)
    faces = []
    for path in some_faces[:5]:
        picture = np.asarray(cv2.imread(str(path)), np.uint8)
        faces += [(Picture(picture, 1), face) for face in detector.detect(picture)[:2]]
    together = LandmarkRefiner(detector, max_looks=6).refine_all(faces)
    for (seen, face), refined in zip(faces, together, strict=True):
        alone = LandmarkRefiner(detector).refine(seen, face)
        np.testing.assert_allclose(refined.landmarks, alone.landmarks, atol=0.02)
