"""Documents as tagged PDF (PDF/UA-1), set by typst from templates of this folder."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Any

import orjson
import typst

from services.shared.errors import PlatformError
from services.shared.work_folder import work_folder

_TEMPLATES = ("common.typ", "result.typ", "disclosure.typ")


class Typesetter:
    """Sets one document after the other: typst takes a second of one core for a long pack, and memory with it."""

    def __init__(self) -> None:
        self._turn = Lock()

    def result(self, facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> bytes:
        """The released result. Raises PlatformError."""
        return self._set("result.typ", facts, pictures)

    def disclosure(self, facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> bytes:
        """The full pack. Raises PlatformError."""
        return self._set("disclosure.typ", facts, pictures)

    def _set(self, template: str, facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> bytes:
        with self._turn, work_folder("document") as folder:
            _lay_out(folder, facts, pictures)
            try:
                # No package and no font from outside: only what the wheel brings.
                return bytes(
                    typst.compile(
                        folder / template,
                        root=folder,
                        ignore_system_fonts=True,
                        format="pdf",
                        pdf_standards=["ua-1"],
                    )
                )
            except RuntimeError as error:
                raise PlatformError("The document could not be set.", advice="Tell the operators.") from error


def _lay_out(folder: Path, facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
    for name in _TEMPLATES:
        text = resources.files("services.review.documents").joinpath(name).read_text("utf-8")
        (folder / name).write_text(text, "utf-8")
    for name, content in pictures.items():
        (folder / f"{name}.jpg").write_bytes(content)
    # What people have written is data in a JSON file and never markup.
    document = {**facts, "pictures": sorted(pictures)}
    (folder / "facts.json").write_bytes(orjson.dumps(document))
