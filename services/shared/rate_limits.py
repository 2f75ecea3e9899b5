"""How often one person, and one force, may ask: more is refused with 429 and when to come again.

Written here rather than taken from `limits`: two limits must be spent together or not at all, a refusal must cost
nothing, and the state is one number a caller. Each process counts for itself, so n replicas let n times as much pass.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Literal

from services.shared.errors import TooManyRequests
from services.shared.settings import RateLimitSettings
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal

Scope = Literal["person", "force"]

# Callers that are remembered; of more, those longest idle are forgotten, whose count has run down anyway.
MAX_CALLERS = 20_000
# After a rest this much of the allowance may come at once.
BURST_S = 20.0
# One caller's refusals are reported at most this often, so that a flood of requests is no flood of audit entries.
REPORT_EVERY_S = 60.0


class RateExceeded(TooManyRequests):
    """`scope` says whose limit; `is_reportable` whether this refusal is the first of that caller in a while."""

    def __init__(self, scope: Scope, retry_after_s: int, *, is_reportable: bool) -> None:
        whose = "You have" if scope == "person" else "Your force has"
        super().__init__(
            f"{whose} sent too many requests.",
            advice=f"Wait {retry_after_s} s, then send fewer at a time; ask your administrator if you need more.",
            context={"scope": scope, "retry_after_s": retry_after_s},
        )
        self.scope = scope
        self.is_reportable = is_reportable


# Records a refusal; called for the first one of a caller in a while, on a thread that may block.
Report = Callable[[Principal, RateExceeded], None]


class RateLimits:
    """Counts by person and by force (the generic cell rate algorithm). Safe for several threads."""

    def __init__(
        self,
        settings: RateLimitSettings,
        metrics: Metrics | None = None,
        report: Report | None = None,
        *,
        now_s: Callable[[], float] = monotonic,
        max_callers: int = MAX_CALLERS,
    ) -> None:
        self._per_minute: dict[Scope, int] = {
            "person": settings.person_per_minute,
            "force": settings.force_per_minute,
        }
        self._metrics = metrics
        self.report = report
        self._now_s = now_s
        self._max_callers = max_callers
        self._lock = Lock()
        # By caller: the moment at which all that it has sent would have come evenly.
        self._due_s: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._reported_s: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def take(self, principal: Principal) -> None:
        """Count one request of the caller. Raises RateExceeded, and then nothing is counted."""
        keys: dict[Scope, tuple[str, ...]] = {
            "person": ("person", principal.force, principal.person_id),
            "force": ("force", principal.force),
        }
        with self._lock:
            now_s = self._now_s()
            due_s: dict[tuple[str, ...], float] = {}
            for scope, key in keys.items():
                if not self._per_minute[scope]:
                    continue
                interval_s = 60.0 / self._per_minute[scope]
                due_s[key] = max(now_s, self._due_s.get(key, now_s)) + interval_s
                late_s = due_s[key] - now_s - max(BURST_S, interval_s)
                if late_s > 1e-9:
                    raise self._refusal(scope, key, late_s, now_s)
            for key, due in due_s.items():
                _put(self._due_s, key, due, self._max_callers)
        if self._metrics is not None:
            self._metrics.http_requests_total.labels(principal.force).inc()

    def _refusal(self, scope: Scope, key: tuple[str, ...], late_s: float, now_s: float) -> RateExceeded:
        reported_s = self._reported_s.get(key)
        is_reportable = reported_s is None or now_s - reported_s >= REPORT_EVERY_S
        if is_reportable:
            _put(self._reported_s, key, now_s, self._max_callers)
        if self._metrics is not None:
            self._metrics.http_rate_limited_total.labels(scope).inc()
        return RateExceeded(scope, max(1, math.ceil(late_s)), is_reportable=is_reportable)


def _put(held: OrderedDict[tuple[str, ...], float], key: tuple[str, ...], value: float, at_most: int) -> None:
    held[key] = value
    held.move_to_end(key)
    while len(held) > at_most:
        held.popitem(last=False)
