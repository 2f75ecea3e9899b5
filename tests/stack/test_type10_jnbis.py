"""What we give to other bodies is read by a second library, of another language and other people: jnbis."""

from __future__ import annotations

import io
import zipfile
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.ingest.exports.exporting import ExportReferences
from tests.stack.servers.jnbis import read_with_jnbis
from tests.unit.ingest.test_exports import ASKS, COMMAND, open_desk, picture

_POSES = (("frontal", "F"), ("left_profile", "L"), ("right_profile", "R"), ("angled", None), ("", None))
# jnbis takes everything up to a record's end for its image: the separator that ends a record is the last byte.
_END_OF_RECORD = b"\x1c"


def test_jnbis_reads_every_record_of_what_we_give(tmp_path: Path) -> None:
    desk = open_desk(tmp_path / "images")
    ours = [picture(number, "PNG" if number == 2 else "JPEG") for number in range(len(_POSES))]
    for image, (pose, _) in zip(ours, _POSES, strict=True):
        desk.hold("S1", image, pose)
    ends_like_a_record = picture(100) + b"\x1d10.999:\x1c\x1c"
    desk.hold("Ærø-2", ends_like_a_record)

    one, two = _given(desk.exporting, desk.approved(replace(COMMAND, subject_ids=("S1", "Ærø-2"))).export_id, tmp_path)

    head = one["transaction"]
    assert (head["version"], head["type"], head["from"], head["to"]) == (
        "0502",
        "FACE",
        "northshire",
        COMMAND.recipient,
    )
    assert [(text["10"], text["11"]) for text in one["texts"]] == [("S1", "C/7")]
    assert [b64decode(face["image"]) for face in one["faces"]] == [image + _END_OF_RECORD for image in ours]
    assert [face["pose"] for face in one["faces"]] == [code for _, code in _POSES]
    assert [face["idc"] for face in one["faces"]] == ["01", "02", "03", "04", "05"]
    assert [face["compression"] for face in one["faces"]] == ["JPEGB", "JPEGB", "PNG", "JPEGB", "JPEGB"]
    alike = {(face["date"], face["width"], face["height"], face["type"], face["agency"]) for face in one["faces"]}
    assert alike == {("20260203", "48", "64", "FACE", "northshire")}
    assert [text["10"] for text in two["texts"]] == ["Ærø-2"]
    assert [b64decode(face["image"]) for face in two["faces"]] == [ends_like_a_record + _END_OF_RECORD]


def _given(exporting: ExportReferences, export_id: str, folder: Path) -> list[Mapping[str, Any]]:
    given = exporting.give(export_id, ASKS)
    with zipfile.ZipFile(io.BytesIO(given.content)) as archive:
        archive.extractall(folder / "given")
    return read_with_jnbis(*sorted((folder / "given").iterdir()))
