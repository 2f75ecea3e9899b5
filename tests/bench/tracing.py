"""What tracing costs: the instrumentation of one search, off, on but not recorded, on and recorded, side by side.

    python -m tests.bench.tracing [--rounds 2000] [--search-ms 75]

One search passes the edge once, ten stages and calls. Nothing is sent: that is another thread's work.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from services.shared import tracing
from services.shared.settings import TracingSettings
from services.shared.tracing_engine import TracingEngine
from tests.bench.timing import side_by_side

_STAGES = 10  # gate, queue, detect, template, gallery, two of audit, and three calls
_EMPTY_LOOPS = 100  # off is too short for one reading


class _Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def _search_untraced() -> None:
    for _ in range(_STAGES):
        with tracing.stage("gallery"):
            pass


def _off() -> None:
    for _ in range(_EMPTY_LOOPS):
        _search_untraced()


def _on(engine: TracingEngine) -> Callable[[], None]:
    """As `start_tracing` leaves it, for the time of one search."""

    def search() -> None:
        tracing._engine = engine
        try:
            with engine.request("POST", None, is_trusted=False, attributes={"http.request.method": "POST"}):
                _search_untraced()
        finally:
            tracing._engine = None

    return search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--search-ms", type=float, default=75.0, help="a whole search, to compare with")
    options = parser.parse_args()
    endpoint = "http://127.0.0.1:9/v1/traces"
    engines = {
        name: TracingEngine("bench", TracingSettings(endpoint=endpoint, sampling_ratio=ratio), _Nowhere())
        for name, ratio in (("not recorded", 0.0), ("recorded", 1.0))
    }
    samples = side_by_side({"off": _off, **{name: _on(engine) for name, engine in engines.items()}}, options.rounds)
    figures = {}
    for name, taken in samples.items():
        ms = taken.p50 / (_EMPTY_LOOPS if name == "off" else 1)
        figures[name] = {"us_per_search": round(ms * 1000, 2), "share_of_search": round(ms / options.search_ms, 6)}
    print(json.dumps(figures, indent=1))
    for engine in engines.values():
        engine.close()


if __name__ == "__main__":
    main()
