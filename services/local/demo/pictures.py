"""The demonstration pictures: taken out of published packages, pinned by SHA-256, kept on this machine only.

None of them is part of Likeness. They are public figures' portraits and samples that other projects publish for trying
out face software; who they show plays no part here, and that anybody of them would stand on a police watchlist is made
up for the demonstration.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from services.local.demo.drawing import PROBE_SETTING, REFERENCE_SETTING, draw_face
from services.shared.packages import PackagePin, cache_folder, fetch_package, read_members

_PORTRAITS = PackagePin(
    "face_recognition",
    "1.3.0",
    "face_recognition-1.3.0.tar.gz",
    "5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec",
)
_ASTRONAUT = PackagePin(
    "scikit-image",
    "0.26.0",
    "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
)
_GROUP = PackagePin(
    "insightface",
    "2.1",
    "insightface-2.1-py3-none-any.whl",
    "dcd58ee79d99d689572477315f3149353afd65a36dc575f597cbb217a7bde399",
)
_PORTRAIT_FOLDER = "face_recognition-1.3.0/tests/test_images"


@dataclass(frozen=True, slots=True)
class _Member:
    """One picture: the file it becomes, where it is published, the hash of its bytes."""

    file: str
    package: PackagePin
    member: str
    sha256: str


_MEMBERS = (
    _Member(
        "subject-1-reference.jpg",
        _PORTRAITS,
        f"{_PORTRAIT_FOLDER}/obama2.jpg",
        "a7efcc907375274796f39646510704aa86672d59f6d5469d69af3c85590976a6",
    ),
    _Member(
        "subject-1-portrait.jpg",
        _PORTRAITS,
        f"{_PORTRAIT_FOLDER}/obama.jpg",
        "0930e3aa8cae5920329c0c8cbc6a2ab70f47b0e67b432875beaa95cbf7e741f6",
    ),
    _Member(
        "subject-1-standing.jpg",
        _PORTRAITS,
        f"{_PORTRAIT_FOLDER}/obama3.jpg",
        "76ac6bf97c36dc2da0ad16a537d6a5ac1b10f48d49aac29a0cca9a17cdbc3ca3",
    ),
    _Member(
        "subject-1-transparent.png",
        _PORTRAITS,
        f"{_PORTRAIT_FOLDER}/32bit.png",
        "44dca895a7d635a4aedddd91a4f37af9a8a5b44e66154282a24645a757b5f627",
    ),
    _Member(
        "subject-1-crop-left.jpg",
        _PORTRAITS,
        f"{_PORTRAIT_FOLDER}/obama_partial_face.jpg",
        "c2d1f09e7ef3042352b41e41286e6eb0522f64f88308be13886991b95db52117",
    ),
    _Member(
        "subject-1-crop-right.jpg",
        _PORTRAITS,
        f"{_PORTRAIT_FOLDER}/obama_partial_face2.jpg",
        "9a812347f97633542b8cd9992de22def11b74f79d82056bc3ee830f13878e028",
    ),
    _Member(
        "subject-2-reference.jpg",
        _PORTRAITS,
        f"{_PORTRAIT_FOLDER}/biden.jpg",
        "3c17508bb91554c637a2eabddfae790e5bb1caba93130814fc2ac50be9760c4c",
    ),
    _Member(
        "group.jpg",
        _GROUP,
        "insightface/data/images/t1.jpg",
        "47f682e945b659f93a9e490b9c9c4a2a864abe64dace9e1a2893845ddfd69489",
    ),
    _Member(
        "not-enrolled.png",
        _ASTRONAUT,
        "skimage/data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
)


def prepare_pictures(folder: Path) -> None:
    """Every picture of the plan in `folder`: fetched, derived or drawn. Raises ConfigurationError."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in _fetch().items():
        (folder / file).write_bytes(content)
    reference = (folder / "subject-2-reference.jpg").read_bytes()
    (folder / "subject-2-small.jpg").write_bytes(_worsened(reference))
    (folder / "subject-3-reference.jpg").write_bytes(draw_face(REFERENCE_SETTING, 900, 92))
    (folder / "subject-3-other-light.jpg").write_bytes(draw_face(PROBE_SETTING, 260, 60))


def _fetch() -> Mapping[str, bytes]:
    cache = cache_folder() / "packages"
    contents: dict[str, bytes] = {}
    for package in (_PORTRAITS, _ASTRONAUT, _GROUP):
        members = [member for member in _MEMBERS if member.package == package]
        read = read_members(fetch_package(package, cache), {member.member: member.sha256 for member in members})
        contents.update({member.file: read[member.member] for member in members})
    return contents


def _worsened(picture: bytes) -> bytes:
    """The same photograph as a poor copy: a third of the size, darker, a little turned, compressed hard."""
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB").rotate(4, resample=Image.Resampling.BICUBIC, expand=False)
    image = image.resize((image.width // 3, image.height // 3), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.point(lambda value: value * 0.8).save(out, "JPEG", quality=40)
    return out.getvalue()
