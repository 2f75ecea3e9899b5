"""Charts as SVG, drawn from published counts alone; the same numbers always give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from services.audit.statistics.intervals import Rate

INK, BLUE, PALE, GREY, GRID = "#1f2933", "#1d4e89", "#9db8d6", "#7b8794", "#e1e6ec"
FONT = "Libertinus Serif, Georgia, 'Times New Roman', serif"
WIDTH, LABELS, VALUES = 640, 190, 175
ROW, TOP, BOTTOM = 30, 12, 30


@dataclass(frozen=True, slots=True)
class RateRow:
    """A rate to draw; None where it is withheld or nothing was counted, and then `note` says which."""

    label: str
    rate: Rate | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class CountRow:
    """A count to draw; None where it is withheld."""

    label: str
    count: int | None


def rate_chart(rows: Sequence[RateRow], title: str) -> str:
    """A dot with its 95 % interval a row, from 0 to 100 %; the denominator beside it."""
    left, right = LABELS, WIDTH - VALUES
    height = TOP + ROW * len(rows) + BOTTOM
    parts = [_frame(height, title)]
    for percent in range(0, 101, 20):
        x = left + (right - left) * percent / 100
        parts += [
            f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{height - BOTTOM}" stroke="{GRID}" stroke-width="1"/>',
            _text(x, height - BOTTOM + 18, f"{percent} %", GREY, 11, "middle"),
        ]
    for number, row in enumerate(rows):
        y = TOP + ROW * number + ROW / 2
        parts.append(_text(left - 12, y + 4, row.label, INK, 13, "end", 30))
        if row.rate is None:
            parts.append(_text(left + 8, y + 4, row.note, GREY, 12, "start"))
            continue
        low, dot, high = (left + (right - left) * share for share in (row.rate.low, row.rate.share, row.rate.high))
        parts += [
            f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{PALE}" stroke-width="7" '
            'stroke-linecap="round"/>',
            f'<circle cx="{dot:.1f}" cy="{y}" r="5.5" fill="{BLUE}"/>',
            _text(right + 14, y + 4, rate_text(row.rate), INK, 12, "start"),
        ]
    return _closed(parts)


def count_chart(rows: Sequence[CountRow], title: str) -> str:
    """A bar a row, the count at its end; a withheld count has an open bar of no meaning in its length."""
    left, right = LABELS, WIDTH - 110
    largest = max((row.count or 0 for row in rows), default=0) or 1
    height = TOP + ROW * len(rows) + 8
    parts = [_frame(height, title)]
    for number, row in enumerate(rows):
        y = TOP + ROW * number + 5
        parts.append(_text(left - 12, y + 14, row.label, INK, 13, "end", 30))
        if row.count is None:
            parts += [
                f'<rect x="{left}" y="{y}" width="16" height="{ROW - 10}" fill="none" stroke="{GREY}" '
                'stroke-dasharray="3 2"/>',
                _text(left + 24, y + 14, "withheld", GREY, 12, "start"),
            ]
            continue
        width = (right - left) * row.count / largest
        parts += [
            f'<rect x="{left}" y="{y}" width="{max(width, 1):.1f}" height="{ROW - 10}" rx="2" fill="{BLUE}"/>',
            _text(left + max(width, 1) + 8, y + 14, f"{row.count:,}", INK, 12, "start"),
        ]
    parts.append(f'<line x1="{left}" y1="{TOP}" x2="{left}" y2="{height - 8}" stroke="{INK}" stroke-width="1"/>')
    return _closed(parts)


def rate_text(rate: Rate) -> str:
    """ "56 % of 50 (42 to 69)" """
    return f"{_percent(rate.share)} % of {rate.total:,} ({_percent(rate.low)} to {_percent(rate.high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _frame(height: float, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" role="img" font-family="{FONT}"><title>{escape(title)}</title>'
    )


def _text(  # noqa: PLR0917 - where, what, how
    x: float, y: float, text: str, colour: str, size: int, anchor: str, longest: int = 60
) -> str:
    shown = text if len(text) <= longest else text[: longest - 1] + "…"
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}" text-anchor="{anchor}">'
        f"{escape(shown)}</text>"
    )


def _closed(parts: Sequence[str]) -> str:
    return "".join(parts) + "</svg>"
