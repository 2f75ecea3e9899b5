"""How much is taken on at once hangs on the processors that there are."""

from __future__ import annotations

import os

import pytest

from services.ingest.settings import LimitSettings
from services.search.settings import SearchSettings
from services.shared.cores import places, usable_cores


def test_only_the_processors_given_to_the_process_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5, 7})
    assert usable_cores() == 3


@pytest.mark.parametrize(("cores", "searches", "uploads"), [(1, 8, 16), (2, 8, 16), (4, 16, 32), (16, 32, 64)])
def test_searches_and_uploads_at_once_follow_the_processors(
    monkeypatch: pytest.MonkeyPatch, cores: int, searches: int, uploads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    assert places(4, at_least=8, at_most=32) == searches
    assert SearchSettings.model_fields["max_concurrent_searches"].get_default(call_default_factory=True) == searches
    assert LimitSettings().uploads_at_once == uploads
