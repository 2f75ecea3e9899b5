"""What `/metrics` shows to whom: counts by watchlist only to whoever holds the scrape token.

How many references a watchlist has, and how that number moves, tells of people in it to those who may not see it. So
without the token such series stand there as one, with `watchlist="all"`; everything else is shown to everybody who can
reach the port.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

WITHHELD_LABEL = "watchlist"
ALL = "all"


def aggregated(registry: CollectorRegistry) -> CollectorRegistry:
    """The registry without the label: samples that differ in it alone are added up."""
    shown = CollectorRegistry(auto_describe=False)
    shown.register(_Aggregated(registry))
    return shown


class _Aggregated(Collector):
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            if not any(WITHHELD_LABEL in sample.labels for sample in family.samples):
                yield family
                continue
            sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
            for sample in family.samples:
                if sample.name.endswith("_created"):
                    continue  # moments are not added up
                labels = {**sample.labels, WITHHELD_LABEL: ALL}
                key = (sample.name, tuple(labels.items()))
                sums[key] = sums.get(key, 0.0) + sample.value
            shown = Metric(family.name, family.documentation, family.type, family.unit)
            for (name, pairs), value in sums.items():
                shown.add_sample(name, dict(pairs), value)
            yield shown


def may_see_watchlists(token_path: Path | None, authorization: str) -> bool:
    """Whether a request bears the token of the file, which is read again each time. False where there is none."""
    if token_path is None:
        return False
    try:
        expected = token_path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return False
    scheme, _, given = authorization.partition(" ")
    is_same = hmac.compare_digest(given.strip().encode(), expected.encode())
    return scheme.lower() == "bearer" and bool(expected) and is_same
