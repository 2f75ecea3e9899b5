"""Plots of an evaluation as PNG files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from services.local.evaluation.metrics import Rate
from services.local.evaluation.summary import Slice, Summary
from services.shared.errors import ConfigurationError

INK, FAINT, BLUE, ORANGE = "#1d2733", "#c9d1d9", "#2563a8", "#d9722e"
# A part with fewer searches has an interval that fills the plot; it stands in the table.
_FEWEST_DRAWN = 5
_STYLE: Any = {
    "figure.figsize": (6.4, 4.0),
    "figure.dpi": 160,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8ecf0",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def draw_plots(summaries: Sequence[Summary], folder: Path) -> dict[str, Path]:
    """Draw every plot that the summaries allow; the first is of the probes as they are. Title -> file."""
    main = summaries[0]
    drawn = {
        "Cumulative match characteristic": _cmc(main, folder / "cmc.png"),
        "Detection error trade-off": _det(main, folder / "det.png"),
        "Scores": _scores(main, folder / "scores.png"),
        "By inter-eye distance and quality": _slices(main, folder / "slices.png"),
    }
    if len(summaries) > 1:
        drawn["Degradation"] = draw_conditions(summaries, folder / "degradation.png")
    return drawn


@contextmanager
def figure(path: Path, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes in the house style, written to a file at the end."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an optional extra, and slow to import
        from matplotlib import pyplot as plt  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            "matplotlib is not installed.", advice="Install Likeness with the extra `evaluate`."
        ) from error
    mpl.use("Agg")
    with mpl.rc_context(_STYLE):
        opened, axes = plt.subplots(**options)
        try:
            yield opened, axes
            opened.savefig(path)
        finally:
            plt.close(opened)


def _percent_axis(axis: Any, digits: int = 0) -> None:
    from matplotlib.ticker import PercentFormatter  # noqa: PLC0415 - see `figure`

    axis.set_major_formatter(PercentFormatter(1.0, decimals=digits))


def _cmc(summary: Summary, path: Path) -> Path:
    with figure(path) as (_, axes):
        shares = np.array(summary.cmc)
        axes.plot(np.arange(1, len(shares) + 1), shares, color=BLUE, lw=2, marker="o", ms=3)
        for rank, rate in summary.ranks.items():
            axes.errorbar(rank, rate.estimate, _arms(rate), color=BLUE, capsize=3, lw=1)
        axes.set_xscale("log")
        axes.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        axes.minorticks_off()
        lowest = min([float(np.nanmin(shares)), *(rate.low for rate in summary.ranks.values())])
        axes.set_ylim(min(0.95, lowest - 0.02), 1.003)
        _percent_axis(axes.yaxis, 1)
        axes.set_xlabel("rank")
        axes.set_title(f"Mated searches with their subject within a rank ({summary.mated} searches)")
    return path


def _det(summary: Summary, path: Path) -> Path:
    with figure(path) as (_, axes):
        floor = 0.5 / max(summary.non_mated_leaving_one_out, 1)
        axes.step(np.maximum(summary.det.fpir, floor), summary.det.fnir, where="post", color=BLUE, lw=2)
        for point in summary.at_fpir_leaving_one_out:
            if point.tpir is not None and point.fpir is not None:
                miss = Rate(1 - point.tpir.estimate, 1 - point.tpir.high, 1 - point.tpir.low, 0, 0)
                axes.errorbar(point.fpir.estimate, miss.estimate, _arms(miss), _arms(point.fpir), "o", color=INK, ms=4)
        axes.set_xscale("log")
        axes.set_xlim(floor, 1)
        axes.set_ylim(0, max(0.1, 1.5 * summary.det.fnir[len(summary.det.fnir) // 100] if summary.det.fnir else 0.1))
        _percent_axis(axes.xaxis, 1)
        _percent_axis(axes.yaxis, 1)
        axes.set_xlabel("FPIR: non-mated searches with a candidate at the threshold")
        axes.set_ylabel("FNIR: mated searches that miss")
        axes.set_title("Misses against false positives")
    return path


def _arms(rate: Rate) -> np.ndarray[Any, Any]:
    arms = np.array([[rate.estimate - rate.low], [rate.high - rate.estimate]])
    positive: np.ndarray[Any, Any] = np.maximum(np.nan_to_num(arms), 0)
    return positive


def _scores(summary: Summary, path: Path) -> Path:
    with figure(path) as (_, axes):
        edges = np.array(summary.scores.edges)
        kinds = (
            (summary.scores.best_other, ORANGE, "best of anybody else"),
            (summary.scores.mated, BLUE, "the probe's own subject"),
        )
        for counts, colour, label in kinds:
            share = np.array(counts) / max(sum(counts), 1)
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.55, label=label)
        if summary.slice_threshold is not None and summary.slice_fpir is not None:
            axes.axvline(summary.slice_threshold, color=INK, lw=1, ls="--")
            axes.annotate(
                f"FPIR {summary.slice_fpir:.0%}",
                (summary.slice_threshold, 0.97),
                (4, 0),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                va="top",
            )
        _percent_axis(axes.yaxis)
        axes.set_xlabel("comparison score (cosine)")
        axes.set_title("Share of searches by score")
        axes.legend(loc="upper right")
    return path


def _slices(summary: Summary, path: Path) -> Path:
    groups = [(title, summary.slices[title]) for title in ("inter-eye distance", "quality") if title in summary.slices]
    with figure(path, ncols=2, figsize=(8.4, 3.6), sharey=True) as (_, both):
        for axes, (title, parts) in zip(both, groups, strict=False):
            _bars(axes, [part for part in parts if part.mated >= _FEWEST_DRAWN], title)
        _percent_axis(both[0].yaxis)
    return path


def _bars(axes: Any, parts: Sequence[Slice], title: str) -> None:
    places = np.arange(len(parts))
    for shift, colour, label, rates in (
        (-0.12, BLUE, "rank 1", [part.rank_1 for part in parts]),
        (0.12, ORANGE, "at the threshold", [part.tpir for part in parts]),
    ):
        for place, rate in zip(places, rates, strict=True):
            if rate is not None:
                axes.errorbar(place + shift, rate.estimate, _arms(rate), fmt="o", color=colour, capsize=3, label=label)
                label = "_nolegend_"  # noqa: PLW2901 - named once
    axes.set_xlim(-0.5, len(parts) - 0.5)
    axes.set_xticks(places, [f"{part.name}\n{part.mated} searches" for part in parts], fontsize=7)
    axes.set_title(f"Found, by {title}")
    if len(parts):
        axes.legend(loc="lower right", fontsize=8, frameon=True, framealpha=0.9, edgecolor="none")


def draw_conditions(summaries: Sequence[Summary], path: Path) -> Path:
    """Rank 1, and TPIR at the lowest FPIR that all carry, under each condition."""
    names = [summary.condition for summary in summaries]
    places = np.arange(len(names))[::-1]
    with figure(path, figsize=(6.8, 0.6 + 0.42 * len(names))) as (_, axes):
        for shift, colour, label, rates in (
            (0.13, BLUE, "rank 1", [summary.ranks[1] for summary in summaries]),
            (-0.13, ORANGE, "TPIR at FPIR 1 %", [_one_percent(summary) for summary in summaries]),
        ):
            for place, rate in zip(places, rates, strict=True):
                if rate is not None:
                    arms = _arms(rate)
                    axes.errorbar(
                        rate.estimate, place + shift, xerr=arms, fmt="o", color=colour, capsize=3, label=label
                    )
                    label = "_nolegend_"  # noqa: PLW2901 - named once
        axes.set_yticks(places, names)
        _percent_axis(axes.xaxis)
        axes.legend(loc="lower left", fontsize=8)
        axes.set_title("What low quality costs")
    return path


def _one_percent(summary: Summary) -> Rate | None:
    return next((point.tpir for point in summary.at_fpir_leaving_one_out if point.wished_fpir == 0.01), None)
