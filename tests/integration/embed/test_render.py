"""Pictures of the platform's own making: upright, reduced, repeatable, and nothing of the file but its pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from services.embed.gate.pool import GatePool
from services.embed.render import LARGEST_SIDE, RenderPicture
from services.shared.errors import ImageRefused, Overloaded
from services.shared.telemetry import Metrics


@pytest.fixture(scope="module")
def render(gate: GatePool) -> RenderPicture:
    return RenderPicture(gate, Metrics(CollectorRegistry()), at_once=2)


def saved(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 255, (height, width, 3), dtype=np.uint8))


def opened(content: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(content))
    picture.load()
    return picture


def test_a_small_picture_comes_back_pixel_for_pixel_and_always_the_same(render: RenderPicture) -> None:
    picture = noise(90, 60)
    made = render(saved(picture), 0, as_jpeg=False, timeout_s=20)
    assert (made.width, made.height, made.scale) == (90, 60, 1.0)
    assert (np.asarray(opened(made.content)) == np.asarray(picture)).all()
    assert made == render(saved(picture), LARGEST_SIDE, as_jpeg=False, timeout_s=20)


def test_orientation_is_applied_and_metadata_left_behind(render: RenderPicture) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "<script>alert(1)</script>"
    made = render(saved(noise(90, 60), "JPEG", exif=exif, quality=95), 0, as_jpeg=True, timeout_s=20)
    assert (made.width, made.height) == (60, 90)
    assert b"script" not in made.content
    assert dict(opened(made.content).getexif()) == {}


def test_a_large_picture_is_reduced_and_says_by_how_much(render: RenderPicture) -> None:
    made = render(saved(noise(900, 600)), 300, as_jpeg=False, timeout_s=20)
    assert (made.width, made.height, made.scale) == (300, 200, 3.0)


def test_what_the_gate_refuses_is_refused(render: RenderPicture) -> None:
    for content in (b"", b"<svg onload=alert(1)>", saved(noise(90, 60))[:200]):
        with pytest.raises(ImageRefused):
            render(content, 0, as_jpeg=False, timeout_s=20)


def test_more_than_it_takes_at_once_is_refused(gate: GatePool) -> None:
    none = RenderPicture(gate, Metrics(CollectorRegistry()), at_once=0)
    with pytest.raises(Overloaded):
        none(saved(noise(90, 60)), 0, as_jpeg=False, timeout_s=20)
