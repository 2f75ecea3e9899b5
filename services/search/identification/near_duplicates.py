"""Stops hill climbing: one face searched again and again with small changes, to learn from the scores how a stored
face looks.

What is compared are templates. They stay in the memory of this process for a day at most and go nowhere: not into the
store, a log, a metric or an answer. Each process counts for itself, and anew after a start.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from services.search.identification.requests import SearchRequest
from services.shared.biometric import Vector
from services.shared.clock import Clock
from services.shared.errors import TooManyRequests
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal

Scope = Literal["case", "person"]
_Key = tuple[str, ...]

# 100 MB of templates; of more, the cases and people that have not searched for longest are forgotten.
MAX_HELD = 200_000


class NearDuplicateSettings(BaseModel):
    """How many probes whose templates are alike to `similarity` (a cosine) may be searched within a time.

    Pictures of different people are not that alike, so what is counted are pictures of one face. docs/policy.md has
    what an attacker gains.
    """

    similarity: float = Field(default=0.5, gt=0, le=1)
    per_case: int = Field(default=20, ge=1)
    case_window_s: float = Field(default=3600.0, gt=0)
    # Over all cases, so that a new case reference is no way around it, and a day, so that patience is not either.
    per_person: int = Field(default=60, ge=1)
    person_window_s: float = Field(default=86400.0, gt=0)
    # Of any faces: probes that are just too unlike each other to be counted above measure a stored face too.
    probes_per_person: int = Field(default=150, ge=1)


@dataclass(slots=True)
class _Held:
    """Probes of one case or person: when each was searched (monotonic seconds) and its template, row by row."""

    at_s: npt.NDArray[np.float64]
    templates: npt.NDArray[np.float32]


class NearDuplicates:
    """Counts probes that are alike. Safe for several threads."""

    def __init__(
        self, settings: NearDuplicateSettings, clock: Clock, metrics: Metrics, *, max_held: int = MAX_HELD
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._max_held = max_held
        self._lock = Lock()
        self._held: OrderedDict[_Key, _Held] = OrderedDict()
        self._count = 0
        for scope in ("case", "person", "day"):
            metrics.search_near_duplicates_total.labels(scope)  # from nought, so that the first refusal is an increase

    def check(self, principal: Principal, request: SearchRequest, template: Vector, model_id: str = "") -> None:
        """Remember the probe. Raises TooManyRequests `near_duplicate_probes` or `too_many_probes`, and then it is not.

        The very same template again teaches nobody anything and is not counted.
        """
        # Templates of two models are never compared, so each model has a count of its own.
        keys: dict[Scope, _Key] = {
            "case": ("case", principal.force, _normal(request.case_reference), model_id),
            "person": ("person", principal.force, principal.person_id, model_id),
        }
        with self._lock:
            now_s = self._clock.monotonic_s()
            fresh: list[_Key] = []
            for scope, key in keys.items():
                limit, window_s = self._allowed(scope)
                alike, is_known = self._alike(key, template, now_s - window_s)
                if is_known:
                    continue
                if scope == "person" and self._searched(key) >= self._settings.probes_per_person:
                    self._metrics.search_near_duplicates_total.labels("day").inc()
                    raise self._too_many()
                if alike >= limit:
                    self._metrics.search_near_duplicates_total.labels(scope).inc()
                    raise self._refusal(scope)
                fresh.append(key)
            for key in fresh:
                self._remember(key, template, now_s)

    def _allowed(self, scope: Scope) -> tuple[int, float]:
        settings = self._settings
        if scope == "case":
            return settings.per_case, settings.case_window_s
        return settings.per_person, settings.person_window_s

    def _alike(self, key: _Key, template: Vector, since_s: float) -> tuple[int, bool]:
        """How many since then are alike, and whether this very template is among them; forgets what is older."""
        held = self._held.get(key)
        if held is None:
            return 0, False
        young = held.at_s > since_s
        if not young.all():
            self._count -= int((~young).sum())
            held.at_s, held.templates = held.at_s[young], held.templates[young]
        cosines = held.templates @ template
        is_known = bool((held.templates[cosines > 0.9999] == template).all(axis=1).any())
        return int((cosines >= self._settings.similarity).sum()), is_known

    def _remember(self, key: _Key, template: Vector, now_s: float) -> None:
        held = self._held.get(key)
        row = template[np.newaxis, :].astype(np.float32)
        if held is None:
            self._held[key] = _Held(np.array([now_s]), row)
        else:
            held.at_s = np.append(held.at_s, now_s)
            held.templates = np.concatenate((held.templates, row))
        self._held.move_to_end(key)
        self._count += 1
        while self._count > self._max_held and len(self._held) > 1:
            _, forgotten = self._held.popitem(last=False)
            self._count -= len(forgotten.at_s)

    def _searched(self, key: _Key) -> int:
        held = self._held.get(key)
        return 0 if held is None else len(held.at_s)

    def _too_many(self) -> TooManyRequests:
        hours = self._settings.person_window_s / 3600
        return TooManyRequests(
            f"You have searched {self._settings.probes_per_person} different probes within {hours:g} h.",
            advice="Go on tomorrow; where your work needs more, ask your administrator.",
            code="too_many_probes",
            context={"scope": "day", "retry_after_s": round(self._settings.person_window_s)},
        )

    def _refusal(self, scope: Scope) -> TooManyRequests:
        limit, window_s = self._allowed(scope)
        where = "in this case" if scope == "case" else "by you"
        return TooManyRequests(
            f"{limit} probes much like this one were searched {where} within {window_s / 3600:g} h; no more are.",
            advice="Judge the candidates that you have, or take another picture. Of a film, search the film: it takes "
            "the best frame of each person.",
            code="near_duplicate_probes",
            context={"scope": scope, "retry_after_s": round(window_s)},
        )


def _normal(case_reference: str) -> str:
    """A case by its letters and digits alone: another way to write it is no other case."""
    return "".join(character for character in case_reference.casefold() if character.isalnum())
