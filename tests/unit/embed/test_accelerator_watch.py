"""How busy the GPU is, as the driver's tool says it; here a stand-in for the tool says it."""

from __future__ import annotations

import sys

import pytest
from prometheus_client import CollectorRegistry

from services.embed import accelerator_watch
from services.embed.accelerator_watch import read_accelerators, watch_accelerator
from services.shared.errors import DependencyUnavailable
from services.shared.telemetry import Metrics


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in is an interpreter, which a busy machine is slow to start."""
    monkeypatch.setattr(accelerator_watch, "_TIMEOUT_S", 240.0)


def _saying(text: str) -> list[str]:
    return [sys.executable, "-c", f"print({text!r})"]


def test_every_device_is_told() -> None:
    registry = CollectorRegistry()
    read_accelerators(Metrics(registry), _saying("0, 87, 40960, 81559\n1, 0, 3, 81559"))
    busy, memory = "likeness_embed_accelerator_busy_ratio", "likeness_embed_accelerator_memory_bytes"
    assert registry.get_sample_value(busy, {"device": "0"}) == 0.87
    assert registry.get_sample_value(busy, {"device": "1"}) == 0
    assert registry.get_sample_value(memory, {"device": "0", "kind": "used"}) == 40960 * 2**20
    assert registry.get_sample_value(memory, {"device": "1", "kind": "total"}) == 81559 * 2**20


@pytest.mark.parametrize("tool", [["no-such-tool-anywhere"], _saying("[N/A], [N/A]"), [sys.executable, "-c", "1/0"]])
def test_a_tool_that_does_not_say_it_is_an_error_that_is_logged_and_tried_again(tool: list[str]) -> None:
    with pytest.raises(DependencyUnavailable):
        read_accelerators(Metrics(CollectorRegistry()), tool)


def test_on_a_cpu_nothing_is_asked() -> None:
    assert watch_accelerator("CPUExecutionProvider", Metrics(CollectorRegistry())) is None
