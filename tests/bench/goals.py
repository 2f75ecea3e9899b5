"""The goals that Likeness is held to, and how the figures of a run stand to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNIT_SIZE = 107_500  # references of the unit that Likeness is built for
LARGE_SIZE = 1_000_000


@dataclass(frozen=True, slots=True)
class Standing:
    """One goal: what was measured, the ratio, its bound, and which side of the bound is good."""

    goal: str
    figure: str
    ratio: float
    bound: float
    is_upper_bound: bool = True

    @property
    def is_met(self) -> bool:
        return self.ratio <= self.bound if self.is_upper_bound else self.ratio >= self.bound

    def row(self) -> str:
        sign = "≤" if self.is_upper_bound else "≥"
        verdict = "met" if self.is_met else "**missed**"
        return f"| {self.goal} | {self.figure} | {self.ratio:.2f} | {sign} {self.bound:g} | {verdict} |"


def standings(figures: Mapping[str, Any]) -> list[Standing]:
    """Every goal that the figures of this run can answer."""
    found: list[Standing] = []
    unit = figures["search"].get(str(UNIT_SIZE))
    large = figures["search"].get(str(LARGE_SIZE))
    if unit:
        found += _search(unit)
    found += [_recall(int(size), each["recall"]) for size, each in figures["search"].items()]
    if unit and large:
        found += _growth(unit, large)
    if "bulk_enrolment" in figures:
        bulk = figures["bulk_enrolment"]
        figure = f"{bulk['images_per_s']} of {bulk['bare_images_per_s']} images/s"
        share = bulk["images_per_s"] / bulk["bare_images_per_s"]
        found.append(Standing("bulk enrolment, share of the bare rate", figure, share, 0.85, is_upper_bound=False))
    if "memory_mb" in figures:
        total = figures["memory_mb"]["all"]
        found.append(Standing("memory of all services, 1.5 GB", f"{total:.0f} MB", total / 1500, 1.0))
    if "start_up" in figures:
        first = figures["start_up"]["first_search_s"]
        found.append(Standing("first search after the start, 10 s", f"{first:.1f} s", first / 10, 1.0))
    if "load" in figures:
        found += _load(figures["load"])
    return found


def _load(load: Mapping[str, Any]) -> list[Standing]:
    steady, burst = load["steady"]["searches"], load["burst"]["searches"]
    rate = f"{load['searches_per_s']:g} searches and {load['enrolments_per_s']:g} enrolments/s"
    found = [Standing(f"{rate}, stub networks, p95", f"{steady['p95_ms']:.0f} ms", steady["p95_ms"] / 300, 1.0)]
    if burst["shed_p50_ms"] is not None:
        figure = f"{burst['shed_p50_ms']:.0f} ms of {burst['shed']} of {burst['requests']}"
        figure += f", others {burst['other']}" if burst["other"] else ""
        found.append(Standing("shed at ten times that, p50, 100 ms", figure, burst["shed_p50_ms"] / 100, 1.0))
    seen = load["burst_seen_by_another"]
    if seen["shed_p50_ms"] is not None:
        figure = f"{seen['shed_p50_ms']:.0f} ms of {seen['shed']} of {seen['requests']}"
        found.append(Standing("the same, seen by a client beside it", figure, seen["shed_p50_ms"] / 100, 1.0))
    again = load["normal_again_s"]
    return [*found, Standing("normal again after it, 10 s", f"{again:.1f} s", again / 10, 1.0)]


def _search(unit: Mapping[str, Any]) -> list[Standing]:
    rest, fast, naive, floor = (unit[name] for name in ("rest", "fast_path", "naive", "memory_read"))
    gallery = unit["stages"]["gallery"]["p50_ms"]
    return [
        Standing(
            "REST search p50, to the fast path", _pair(rest, fast, "p50_ms"), rest["p50_ms"] / fast["p50_ms"], 1.5
        ),
        Standing(
            "REST search p99, to the fast path", _pair(rest, fast, "p99_ms"), rest["p99_ms"] / fast["p99_ms"], 3.0
        ),
        Standing(
            "naive script p50, to the REST search",
            _pair(naive, rest, "p50_ms"),
            naive["p50_ms"] / rest["p50_ms"],
            2.0,
            is_upper_bound=False,
        ),
        Standing(
            "gallery stage p50, to the memory-read floor",
            f"{gallery:.2f} of {floor['p50_ms']:.2f} ms",
            gallery / floor["p50_ms"],
            1.3,
        ),
    ]


def _recall(size: int, recall: Mapping[str, Any]) -> Standing:
    wanted = recall["wanted"]
    figure = f"the answer {recall['rest']:.3f}, {recall['gallery_probes']} probes {recall['gallery']:.3f}"
    worst = min(recall["rest"], recall["gallery"])
    return Standing(f"recall of the best {wanted} of {size:,}, by float64", figure, worst, 1.0, is_upper_bound=False)


def _growth(unit: Mapping[str, Any], large: Mapping[str, Any]) -> list[Standing]:
    stages = [figures["stages"] for figures in (unit, large)]
    gallery = [stage["gallery"]["p50_ms"] for stage in stages]
    rest = [stage["total"]["p50_ms"] - stage["gallery"]["p50_ms"] for stage in stages]
    return [
        Standing(
            "gallery stage, 107,500 to 1,000,000 references",
            f"{gallery[0]:.2f} to {gallery[1]:.2f} ms",
            gallery[1] / gallery[0],
            LARGE_SIZE / UNIT_SIZE,
        ),
        Standing("everything else at that growth", f"{rest[0]:.1f} to {rest[1]:.1f} ms", rest[1] / rest[0], 1.1),
    ]


def _pair(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> str:
    return f"{one[name]:.1f} to {other[name]:.1f} ms"


def table(figures: Mapping[str, Any]) -> str:
    """The goals of a run as a Markdown table."""
    head = "| goal | figures | ratio | bound | |\n|---|---|---|---|---|\n"
    return head + "\n".join(standing.row() for standing in standings(figures)) + "\n"
