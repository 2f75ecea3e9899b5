"""A search request: what must be said before a probe is looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import orjson

from services.shared.errors import InvalidRequest
from services.shared.watchlists import CaseType, Watchlists

MAX_TEXT_CHARS = 200  # a crime number, an offence in words
MIN_CANDIDATES, MAX_CANDIDATES, DEFAULT_CANDIDATES = 2, 50, 20

SINGLE_FIELDS = (
    "case_reference",
    "purpose",
    "offence",
    "source",
    "nature",
    "case_type",
    "mode",
    "max_candidates",
    "face",
    "face_chosen_by",
)
FIELDS = frozenset({*SINGLE_FIELDS, "watchlists"})


class SearchMode(StrEnum):
    """INVESTIGATION: a fixed-length list for a human. IDENTIFICATION: only candidates at or over a threshold."""

    INVESTIGATION = "investigation"
    IDENTIFICATION = "identification"


class ProbeSource(StrEnum):
    """Where the image comes from. There is no live camera among them."""

    CCTV = "cctv"
    BODY_WORN_VIDEO = "body_worn_video"
    SOCIAL_MEDIA = "social_media"
    PHONE = "phone"
    DOCUMENT = "document"
    OTHER = "other"


class ImageNature(StrEnum):
    """What kind of picture it is, as whoever sends it declares. A plain PHOTOGRAPH or VIDEO_FRAME is searched like any;
    what else is declared flags the probe (probe_policy.py), or the policy does not permit it at all.

    REPHOTOGRAPHED: a picture of a screen or of a print. COMPOSITE: put together of parts, by hand or by computer.
    LOOK_ALIKE: somebody else who is said to look like the person. GENERATED: made or changed by a trained model.
    """

    PHOTOGRAPH = "photograph"
    VIDEO_FRAME = "video_frame"
    RETOUCHED = "retouched"
    REPHOTOGRAPHED = "rephotographed"
    DRAWING = "drawing"
    COMPOSITE = "composite"
    LOOK_ALIKE = "look_alike"
    GENERATED = "generated"
    UNSTATED = "unstated"


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A complete request. `face` is the index of the face to search where the caller has chosen one."""

    case_reference: str
    purpose: str
    offence: str
    source: ProbeSource
    watchlists: tuple[str, ...]
    mode: SearchMode = SearchMode.INVESTIGATION
    max_candidates: int = DEFAULT_CANDIDATES
    face: int | None = None
    # Who chose the face from the scene, where it was not the person whose token it is; empty for that person.
    face_chosen_by: str = ""
    case_type: CaseType = CaseType.UNSTATED
    nature: ImageNature = ImageNature.UNSTATED

    def fingerprint(self, probe_sha256: str) -> str:
        """SHA-256 that tells this request with this probe from any other, for idempotency keys."""
        content = [
            self.case_reference,
            self.purpose,
            self.offence,
            self.source,
            sorted(self.watchlists),
            self.mode,
            self.max_candidates,
            self.face,
            self.case_type,
            self.face_chosen_by,
            probe_sha256,
            # Keys of before it could be stated stay those of the same request.
            *([] if self.nature is ImageNature.UNSTATED else [self.nature]),
        ]
        return hashlib.sha256(orjson.dumps(content)).hexdigest()


def parse_request(texts: Mapping[str, Sequence[str]], watchlists: Watchlists) -> SearchRequest:
    """Check the text fields of a form; `texts` has each field's values in the order in which they came.

    Raises InvalidRequest whose context `fields` names everything that is wrong at once.
    """
    form = _Form(texts)
    form.reject_unknown()
    request = SearchRequest(
        case_reference=form.text("case_reference"),
        purpose=form.choice("purpose", sorted(watchlists.purposes)),
        offence=form.text("offence"),
        source=ProbeSource(form.choice("source", list(ProbeSource)) or ProbeSource.OTHER),
        nature=ImageNature(form.choice("nature", list(ImageNature), default=ImageNature.UNSTATED)),
        watchlists=form.watchlists(watchlists),
        mode=SearchMode(form.choice("mode", list(SearchMode), default=SearchMode.INVESTIGATION)),
        max_candidates=form.number("max_candidates", MIN_CANDIDATES, MAX_CANDIDATES) or DEFAULT_CANDIDATES,
        face=form.number("face", 0, 10_000),
        face_chosen_by=form.optional_text("face_chosen_by"),
        case_type=CaseType(form.choice("case_type", list(CaseType), default=CaseType.UNSTATED)),
    )
    form.complain()
    return request


class _Form:
    """Reads fields and collects what is wrong with them."""

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        self._texts = texts
        self._problems: dict[str, str] = {}

    def complain(self) -> None:
        if self._problems:
            raise InvalidRequest(
                f"Missing or invalid: {', '.join(self._problems)}.",
                advice="Correct the named fields; /docs lists every field and its form.",
                context={"fields": [{"field": name, "problem": text} for name, text in self._problems.items()]},
            )

    def reject_unknown(self) -> None:
        for name in sorted(self._texts.keys() - FIELDS):
            self._problems[name[:64]] = "There is no such field; who you are is taken from your token."

    def text(self, name: str) -> str:
        value = self._single(name)
        if not value:
            self._problems.setdefault(name, "Required.")
        elif len(value) > MAX_TEXT_CHARS:
            self._problems[name] = f"At most {MAX_TEXT_CHARS} characters."
        elif not value.isprintable():
            self._problems[name] = "Printable characters only."
        return value

    def optional_text(self, name: str) -> str:
        return self.text(name) if name in self._texts else ""

    def choice(self, name: str, allowed: Sequence[str], default: str = "") -> str:
        value = self._single(name) or default
        if value in allowed:
            return value
        one_of = f"One of {', '.join(allowed)}."
        self._problems.setdefault(name, one_of if value else f"Required. {one_of}")
        return default

    def number(self, name: str, lowest: int, highest: int) -> int | None:
        value = self._single(name)
        if not value:
            return None
        if value.isascii() and value.isdigit() and len(value) <= 5 and lowest <= int(value) <= highest:
            return int(value)
        self._problems[name] = f"A whole number from {lowest} to {highest}."
        return None

    def watchlists(self, known: Watchlists) -> tuple[str, ...]:
        """Each once, in the order of the configuration, so that the order asked for changes nothing."""
        asked = {value.strip() for value in self._texts.get("watchlists", ())}
        unknown = sorted(asked - set(known.ids))
        if not asked or unknown:
            wrong = f"Unknown: {', '.join(value[:64] for value in unknown[:8])!r}." if any(unknown) else "Required."
            self._problems["watchlists"] = f"{wrong} Repeat the field for each of {', '.join(known.ids)} that you need."
        return tuple(watchlist for watchlist in known.ids if watchlist in asked)

    def _single(self, name: str) -> str:
        values = self._texts.get(name, ())
        if len(values) > 1:
            self._problems[name] = "Give it once."
            return ""
        return values[0].strip() if values else ""
