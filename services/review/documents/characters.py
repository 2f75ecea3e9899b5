"""Characters that no font of the documents has.

A tagged PDF must not hold a character that is not displayed, so the typesetter refuses it; a name in a script that the
fonts do not know must not cost a case its document. Such a character is written as its Unicode number, which nothing is
lost by, and the document says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def number_of(character: str) -> str:
    """As Unicode writes it: [U+738B]."""
    return f"[U+{ord(character):04X}]"


def characters_of(value: Any) -> Iterator[str]:
    """Every character beyond printable ASCII of the texts in `value`, however deep; some of them twice."""
    if isinstance(value, str):
        yield from (one for one in set(value) if not " " <= one <= "~")
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from characters_of(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from characters_of(part)


def replaced(value: Any, numbers: Mapping[int, str]) -> Any:
    """`value` with characters of its texts replaced, by the table that str.translate takes."""
    if isinstance(value, str):
        return value.translate(dict(numbers))
    if isinstance(value, Mapping):
        return {name: replaced(part, numbers) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [replaced(part, numbers) for part in value]
    return value


class KnownCharacters:
    """Which characters can be displayed; each is tried once by itself."""

    def __init__(self, is_displayed: Callable[[str], bool]) -> None:
        self._is_displayed = is_displayed
        self._known: dict[str, bool] = {}

    def missing(self, value: Any) -> dict[int, str]:
        """The characters of `value` that cannot be displayed, each with what stands for it."""
        found = sorted(set(characters_of(value)))
        for one in found:
            if one not in self._known:
                self._known[one] = self._is_displayed(one)
        return {ord(one): number_of(one) for one in found if not self._known[one]}
