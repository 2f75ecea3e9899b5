"""The contact sheet as one picture, drawn with Pillow alone."""

from __future__ import annotations

import textwrap
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from services.local.demo.plan import SUBJECTS, Expectation
from services.local.demo.results import (
    INTELLIGENCE_ONLY,
    NOTICE,
    PROMISE_MS,
    STAGES,
    DemoResult,
    ProbeResult,
    ShownCandidate,
    synthetic_statement,
)
from services.local.demo.sheet_images import (
    ACCENT,
    ALERT,
    CARD,
    CAUTION,
    INK,
    LINE,
    MUTED,
    PAPER,
    placeholder_image,
    probe_image,
    reference_image,
    rounded,
)

Colour = tuple[int, int, int]
_WIDTH = 1720
_MARGIN = 72
_HEAD_HEIGHT = 372
_FOOT_HEIGHT = 236
_CARD_HEIGHT = 444
_GAP = 24
_PAD = 30
_PROBE = (360, 330)
_CANDIDATE = 196
_WELL: Colour = (241, 240, 235)
_PALE: Colour = (139, 149, 155)


def write_png(result: DemoResult, pictures: Path, target: Path) -> None:
    """Draw and write the sheet."""
    height = _HEAD_HEIGHT + len(result.probes) * (_CARD_HEIGHT + _GAP) + _FOOT_HEIGHT
    sheet = _Sheet(Image.new("RGB", (_WIDTH, height), PAPER), pictures)
    sheet.head(result)
    for number, entry in enumerate(result.probes):
        sheet.card(entry, _HEAD_HEIGHT + number * (_CARD_HEIGHT + _GAP))
    sheet.foot(result, height - _FOOT_HEIGHT + 8)
    sheet.image.save(target, "PNG", optimize=True)


class _Sheet:
    """The sheet while it is drawn."""

    def __init__(self, image: Image.Image, pictures: Path) -> None:
        self.image = image
        self._pictures = pictures
        self._draw = ImageDraw.Draw(image)
        self._references = {
            subject.subject_id: (reference_image(subject, pictures, _CANDIDATE), subject.about) for subject in SUBJECTS
        }
        self._placeholder = placeholder_image(_CANDIDATE)

    def head(self, result: DemoResult) -> None:
        self._text(_MARGIN, 64, "Likeness demonstration", 50)
        self._lines(_MARGIN, 132, NOTICE, 20, 104)
        top = 222
        self._rule(top)
        required = [entry for entry in result.probes if entry.probe.expectation is Expectation.RANK_ONE]
        at_one = sum(entry.is_as_expected for entry in required)
        figures = (
            (f"{result.enrolled:,}", f"references, {result.synthetic:,} of them synthetic"),
            (f"{at_one} of {len(required)}", "probes of enrolled people at rank 1"),
            (f"{result.slowest_ms / 1000:.2f} s", f"slowest answer ({PROMISE_MS / 1000:g} s promised)"),
            (f"{len(result.counts)} watchlists", ", ".join(result.counts)),
        )
        for number, (figure, meaning) in enumerate(figures):
            x = _MARGIN + number * 404
            self._text(x, top + 24, figure, 38)
            self._text(x, top + 76, meaning, 18, MUTED)
        self._rule(top + 118)

    def card(self, entry: ProbeResult, top: int) -> None:
        frame = (_MARGIN, top, _WIDTH - _MARGIN, top + _CARD_HEIGHT)
        self._draw.rounded_rectangle(frame, 18, fill=CARD, outline=LINE, width=1)
        self._probe(entry, _MARGIN + _PAD, top + _PAD)
        left = _MARGIN + _PAD + _PROBE[0] + 36
        self._title(entry, left, top + _PAD - 4)
        for number, candidate in enumerate(entry.candidates):
            self._candidate(entry, candidate, left + number * (_CANDIDATE + 35), top + _PAD + 44)
        self._times(entry, top + _CARD_HEIGHT - 46)

    def foot(self, result: DemoResult, top: int) -> None:
        self._rule(top)
        y = self._lines(_MARGIN, top + 22, synthetic_statement(result), 18, 150)
        y = self._lines(_MARGIN, y + 8, INTELLIGENCE_ONLY, 18, 150)
        self._lines(_MARGIN, y + 8, f"Model {result.model_id}. {result.gallery}. {result.made_on}.", 18, 150)

    def _probe(self, entry: ProbeResult, left: int, top: int) -> None:
        width, height = _PROBE
        self._draw.rounded_rectangle((left, top, left + width, top + height), 12, fill=_WELL)
        picture = probe_image(entry, self._pictures, width, height)
        at = (left + (width - picture.width) // 2, top + (height - picture.height) // 2)
        self.image.paste(rounded(picture, 12, _WELL if picture.width < width else CARD), at)

    def _title(self, entry: ProbeResult, left: int, top: int) -> None:
        x = self._text(left, top, entry.probe.title, 24) + 16
        if entry.probe.expectation is Expectation.HARD:
            x = self._pill(x, top + 1, "hard", CAUTION, (247, 238, 218)) + 14
        self._text(x, top + 5, entry.probe.about, 18, MUTED)
        if entry.probe.expectation is Expectation.NOT_ENROLLED:
            verdict, colour, ground = f"not enrolled: {entry.verdict}", MUTED, (238, 240, 238)
        elif entry.is_as_expected:
            verdict, colour, ground = f"{entry.probe.subject_id}: {entry.verdict}", ACCENT, (226, 239, 236)
        else:
            verdict, colour, ground = f"{entry.probe.subject_id}: {entry.verdict}", ALERT, (246, 227, 224)
        width = round(_font(18).getlength(verdict)) + 28
        self._pill(_WIDTH - _MARGIN - _PAD - width, top + 1, verdict, colour, ground)

    def _candidate(self, entry: ProbeResult, candidate: ShownCandidate, left: int, top: int) -> None:
        picture, about = self._references.get(candidate.subject_id, (self._placeholder, "synthetic, no picture"))
        self.image.paste(rounded(picture, 11, CARD), (left, top))
        is_right = candidate.subject_id == entry.probe.subject_id
        if is_right:
            frame = (left - 5, top - 5, left + _CANDIDATE + 4, top + _CANDIDATE + 4)
            self._draw.rounded_rectangle(frame, 15, outline=ACCENT, width=3)
        y = top + _CANDIDATE + 10
        colour = ACCENT if is_right else _PALE if candidate.is_synthetic else INK
        self._text(left, y, f"{candidate.score:.3f}", 26, colour)
        self._text(left, y + 33, f"{candidate.rank}. {candidate.subject_id}", 16, colour)
        self._text(left, y + 54, candidate.watchlist, 15, MUTED)
        self._text(left, y + 73, about, 15, MUTED)

    def _times(self, entry: ProbeResult, top: int) -> None:
        left, right = _MARGIN + _PAD, _WIDTH - _MARGIN - _PAD
        self._draw.line((left, top - 8, right, top - 8), fill=LINE)
        count = len(entry.faces)
        x = self._text(left, top + 6, f"{count} face{'s' if count != 1 else ''}", 17, MUTED) + 36
        for stage in STAGES:
            x = self._text(x, top + 6, f"{stage} ", 17, MUTED)
            x = self._text(x, top + 6, f"{entry.timings_ms[stage]:.0f} ms", 17, INK) + 28
        waited = f"the caller waited {entry.waited_ms:.0f} ms"
        self._text(right - round(_font(17).getlength(waited)), top + 6, waited, 17, MUTED)

    def _text(self, x: int, y: int, text: str, size: int, colour: Colour = INK) -> int:
        """Draw and return where the text ends."""
        self._draw.text((x, y), text, font=_font(size), fill=colour)
        return x + round(_font(size).getlength(text))

    def _lines(self, x: int, y: int, text: str, size: int, columns: int) -> int:
        for line in textwrap.wrap(text, columns):
            self._text(x, y, line, size, MUTED)
            y += round(size * 1.5)
        return y

    def _pill(self, x: int, y: int, text: str, colour: Colour, ground: Colour) -> int:
        end = x + round(_font(18).getlength(text)) + 28
        self._draw.rounded_rectangle((x, y, end, y + 30), 15, fill=ground)
        self._text(x + 14, y + 4, text, 18, colour)
        return end

    def _rule(self, y: int) -> None:
        self._draw.line((_MARGIN, y, _WIDTH - _MARGIN, y), fill=LINE, width=2)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Pillow's own font: the same everywhere, nothing has to be installed.
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # noqa: S101 - the bitmap font only without FreeType
    return font
