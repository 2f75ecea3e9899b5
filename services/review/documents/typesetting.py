"""Documents as tagged PDF (PDF/UA-1), set by typst from templates of this folder."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Any

import orjson
import typst

from services.review.documents.characters import KnownCharacters, replaced
from services.shared.errors import PlatformError
from services.shared.work_folder import work_folder

# Of the running text, as in common.typ; what it does not have is taken from the others that the wheel brings.
_FONT = "Libertinus Serif"
_TEMPLATES = ("common.typ", "result.typ", "disclosure.typ")


class Typesetter:
    """Sets one document after the other: typst takes a second of one core for a long pack, and memory with it."""

    def __init__(self) -> None:
        self._turn = Lock()
        self._characters = KnownCharacters(_is_displayed)

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
                return _compile(folder / template)
            except RuntimeError as error:
                numbers = self._characters.missing(facts)
                if not numbers:
                    raise _cannot_be_set() from error
            _write_facts(folder, {**replaced(facts, numbers), "has_numbers": True}, pictures)
            try:
                return _compile(folder / template)
            except RuntimeError as error:
                raise _cannot_be_set() from error


def _compile(document: Path) -> bytes:
    """No package and no font from outside: only what the wheel brings. Raises RuntimeError."""
    return bytes(
        typst.compile(document, root=document.parent, ignore_system_fonts=True, format="pdf", pdf_standards=["ua-1"])
    )


def _cannot_be_set() -> PlatformError:
    return PlatformError("The document could not be set.", advice="Tell the operators.")


def _is_displayed(character: str) -> bool:
    """Whether a document with nothing but this character can be set."""
    with work_folder("character") as folder:
        (folder / "text.json").write_bytes(orjson.dumps(character))
        document = folder / "text.typ"
        document.write_text(f'#set document(title: "Text")\n#set text(font: "{_FONT}")\n#json("text.json")\n', "utf-8")
        try:
            _compile(document)
        except RuntimeError:
            return False
    return True


def _lay_out(folder: Path, facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
    for name in _TEMPLATES:
        text = resources.files("services.review.documents").joinpath(name).read_text("utf-8")
        (folder / name).write_text(text, "utf-8")
    for name, content in pictures.items():
        (folder / f"{name}.jpg").write_bytes(content)
    _write_facts(folder, facts, pictures)


def _write_facts(folder: Path, facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
    # What people have written is data in a JSON file and never markup.
    document = {**facts, "pictures": sorted(pictures)}
    (folder / "facts.json").write_bytes(orjson.dumps(document))
