"""Documents as tagged PDF (PDF/UA-1), set by typst from templates of this folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Any

import orjson
import typst

from services.review.documents.characters import KnownCharacters, replaced
from services.shared.errors import PlatformError
from services.shared.work_folder import work_folder

# Packages of the lock with fonts for what the typesetter's own have no letters of. None is imported: fonts are data.
_FONT_PACKAGES = ("pylopdf_fonts_zh_cn", "pylopdf_fonts_ko", "fontpkg_noto_sans_thai")
# Of the running text, as in common.typ; what the first does not have is taken from the next, then from any other.
_FONTS = ("Libertinus Serif", "Noto Serif SC", "Noto Serif KR", "Noto Sans Thai")
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


@cache
def _fonts() -> typst.Fonts:
    """The typesetter's own and those of the lock; never what a machine happens to have."""
    found = (importlib.util.find_spec(name) for name in _FONT_PACKAGES)
    folders = [Path(place) for one in found if one is not None for place in one.submodule_search_locations or ()]
    return typst.Fonts(include_system_fonts=False, include_embedded_fonts=True, font_paths=folders)


def _compile(document: Path) -> bytes:
    """No package from outside. Raises RuntimeError."""
    return bytes(
        typst.compile(document, root=document.parent, font_paths=_fonts(), format="pdf", pdf_standards=["ua-1"])
    )


def _cannot_be_set() -> PlatformError:
    return PlatformError("The document could not be set.", advice="Tell the operators.")


def _is_displayed(character: str) -> bool:
    """Whether a document with nothing but this character can be set."""
    with work_folder("character") as folder:
        (folder / "text.json").write_bytes(orjson.dumps(character))
        document = folder / "text.typ"
        fonts = ", ".join(f'"{name}"' for name in _FONTS)
        document.write_text(f'#set document(title: "Text")\n#set text(font: ({fonts}))\n#json("text.json")\n', "utf-8")
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
