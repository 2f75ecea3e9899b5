"""A run as two pictures: searches beside their floor and the usual script, and where a search spends its time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

from tests.bench.platform_measures import STAGES

_PATHS = {"fast_path": "fast path, one process", "rest": "Likeness, REST search", "naive": "naive script"}
_COLOURS = ("#8aa4b8", "#1d4f73", "#c98b4a", "#6a8f5b", "#a05a72")


def draw(figures: Mapping[str, Any], folder: Path) -> None:
    """Write search_latency.png and search_stages.png."""
    searches = figures["search"]
    if searches:
        _latency(searches, folder / "search_latency.png")
        _stages(searches, folder / "search_stages.png")


def _latency(searches: Mapping[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    width = 0.26
    for index, (name, label) in enumerate(_PATHS.items()):
        places = [place + (index - 1) * width for place in range(len(searches))]
        p50 = [entry[name]["p50_ms"] for entry in searches.values()]
        above = [entry[name]["p99_ms"] - entry[name]["p50_ms"] for entry in searches.values()]
        bars = axes.bar(places, p50, width, yerr=[[0] * len(p50), above], capsize=3, label=label, color=_COLOURS[index])
        axes.bar_label(bars, [f"{value:.0f}" for value in p50], padding=2, fontsize=8)
    axes.set_xticks(range(len(searches)), [f"{int(size):,}" for size in searches])
    axes.set_xlabel("references in the gallery")
    axes.set_ylabel("milliseconds a search")
    axes.set_title("One search of a 2 MP picture: median, whisker to the 99th percentile", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _stages(searches: Mapping[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.8 * len(searches)), layout="constrained")
    names = [stage for stage in STAGES if stage != "total"]
    for row, entry in enumerate(searches.values()):
        left = 0.0
        for colour, stage in zip(_COLOURS, names, strict=True):
            taken = entry["stages"][stage]["p50_ms"]
            axes.barh(row, taken, left=left, color=colour, label=stage if row == 0 else None)
            axes.text(left + taken / 2, row, f"{taken:.1f}", ha="center", va="center", fontsize=8, color="white")
            left += taken
    axes.set_yticks(range(len(searches)), [f"{int(size):,}" for size in searches])
    axes.set_xlabel("milliseconds, medians; waiting for the log runs beside the analysis in part")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=len(names), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.savefig(path, dpi=130)
    plt.close(figure)
