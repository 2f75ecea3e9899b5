"""A request form: everything that must be said before a picture is looked at, with all that is wrong named at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from services.review.model import CaseRequest, CaseType, FacialFeature, ImageNature, ProbeSource, Urgency
from services.shared.errors import InvalidRequest
from services.shared.watchlists import Watchlists

MAX_TEXT_CHARS = 200
MAX_PROSE_CHARS = 2000
MAX_PICTURES = 12
SINGLE_FIELDS = (
    "case_reference",
    "offence",
    "purpose",
    "necessity",
    "case_type",
    "urgency",
    "source",
    "nature",
    "face_chosen_by",
    "remarks",
)
_NEVER_SEARCHED = (ImageNature.DRAWING, ImageNature.COMPOSITE, ImageNature.LOOK_ALIKE, ImageNature.GENERATED)
_Choice = TypeVar("_Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class WatchlistChoice:
    id: str
    title: str
    purposes: tuple[str, ...]
    case_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choices:
    """What a form can offer."""

    purposes: tuple[str, ...]
    watchlists: tuple[WatchlistChoice, ...]
    sources: tuple[ProbeSource, ...] = tuple(ProbeSource)
    natures: tuple[ImageNature, ...] = tuple(ImageNature)
    case_types: tuple[CaseType, ...] = tuple(CaseType)
    urgencies: tuple[Urgency, ...] = tuple(Urgency)
    features: tuple[FacialFeature, ...] = tuple(FacialFeature)
    max_pictures: int = MAX_PICTURES


def choices(watchlists: Watchlists, permitted: frozenset[str]) -> Choices:
    """What somebody whose token names these watchlists can ask for."""
    known = [found for name in watchlists.ids if name in permitted and (found := watchlists.get(name)) is not None]
    return Choices(
        purposes=tuple(sorted(watchlists.purposes)),
        watchlists=tuple(
            WatchlistChoice(w.id, w.title, w.purposes, tuple(kind.value for kind in w.case_types)) for w in known
        ),
    )


def parse_form(
    texts: Mapping[str, Sequence[str]], picture_count: int, watchlists: Watchlists, *, has_film: bool = False
) -> CaseRequest:
    """The request that a form makes. Raises InvalidRequest whose context `fields` names all that is wrong."""
    form = _Form(texts)
    form.reject_unknown()
    request = CaseRequest(
        case_reference=form.text("case_reference"),
        offence=form.text("offence"),
        purpose=form.one_of("purpose", sorted(watchlists.purposes)),
        necessity=form.prose("necessity"),
        case_type=form.choice("case_type", CaseType),
        urgency=form.choice("urgency", Urgency),
        source=form.choice("source", ProbeSource),
        nature=form.choice("nature", ImageNature),
        face_chosen_by=form.text("face_chosen_by"),
        watchlists=form.watchlists(watchlists),
        remarks=form.prose("remarks", is_required=False),
    )
    if request.nature in _NEVER_SEARCHED:
        form.problems.setdefault("nature", "Composites, drawings, look-alikes and generated images are never searched.")
    if not (0 if has_film else 1) <= picture_count <= MAX_PICTURES:
        form.problems["images"] = f"Required: 1 to {MAX_PICTURES} pictures, or a film."
    form.complain()
    return request


def prose(name: str, value: str, *, at_least: int = 3) -> str:
    """A reason that somebody gives. Raises InvalidRequest when it says nothing, or too much."""
    text = value.strip()
    wrong = "Required." if len(text) < at_least else _unfit(text, MAX_PROSE_CHARS, may_have_lines=True)
    if wrong:
        raise InvalidRequest(
            f"Missing or invalid: {name}.", advice="Say why.", context={"fields": [{"field": name, "problem": wrong}]}
        )
    return text


class _Form:
    """Reads fields and collects what is wrong with them."""

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        self._texts = texts
        self.problems: dict[str, str] = {}

    def complain(self) -> None:
        if self.problems:
            raise InvalidRequest(
                f"Missing or invalid: {', '.join(self.problems)}.",
                advice="Correct the named fields; /docs lists every field and its form.",
                context={"fields": [{"field": name, "problem": text} for name, text in self.problems.items()]},
            )

    def reject_unknown(self) -> None:
        for name in sorted(self._texts.keys() - {*SINGLE_FIELDS, "watchlists"}):
            self.problems[name[:64]] = "There is no such field; who you are is taken from your token."

    def text(self, name: str) -> str:
        return self._checked(name, MAX_TEXT_CHARS, is_required=True, may_have_lines=False)

    def prose(self, name: str, *, is_required: bool = True) -> str:
        return self._checked(name, MAX_PROSE_CHARS, is_required=is_required, may_have_lines=True)

    def one_of(self, name: str, allowed: Sequence[str]) -> str:
        value = self._single(name)
        if value not in allowed:
            listed = f"One of {', '.join(allowed)}."
            self.problems.setdefault(name, listed if value else f"Required. {listed}")
        return value

    def choice(self, name: str, kind: type[_Choice]) -> _Choice:
        """The chosen member; the first one, which nobody sees, when there is a problem."""
        members = list(kind)
        value = self.one_of(name, [member.value for member in members])
        return next((member for member in members if member.value == value), members[0])

    def watchlists(self, known: Watchlists) -> tuple[str, ...]:
        asked = {value.strip() for value in self._texts.get("watchlists", ())}
        unknown = sorted(asked - set(known.ids))
        if not asked or unknown:
            wrong = f"Unknown: {', '.join(value[:64] for value in unknown[:8])!r}." if any(unknown) else "Required."
            self.problems["watchlists"] = f"{wrong} Repeat the field for each of {', '.join(known.ids)} that you need."
        return tuple(watchlist for watchlist in known.ids if watchlist in asked)

    def _checked(self, name: str, limit: int, *, is_required: bool, may_have_lines: bool) -> str:
        value = self._single(name)
        if not value:
            if is_required:
                self.problems.setdefault(name, "Required.")
        elif wrong := _unfit(value, limit, may_have_lines=may_have_lines):
            self.problems[name] = wrong
        return value

    def _single(self, name: str) -> str:
        values = self._texts.get(name, ())
        if len(values) > 1:
            self.problems[name] = "Give it once."
            return ""
        return values[0].replace("\r\n", "\n").strip() if values else ""


def _unfit(text: str, limit: int, *, may_have_lines: bool) -> str:
    if len(text) > limit:
        return f"At most {limit} characters."
    one_line = text.replace("\n", " ").replace("\t", " ") if may_have_lines else text
    return "" if one_line.isprintable() else "Printable characters only."
