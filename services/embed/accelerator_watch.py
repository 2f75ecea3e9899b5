"""How busy the accelerator is and how full its memory, as the driver's own tool says it.

Read from `nvidia-smi`, which the driver brings into every container that may use the device; no package is needed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from services.shared.errors import DependencyUnavailable
from services.shared.periodic import Periodic
from services.shared.telemetry import Metrics

_TOOL = (
    "nvidia-smi",
    "--query-gpu=index,utilization.gpu,memory.used,memory.total",
    "--format=csv,noheader,nounits",
)
_EVERY_S = 15.0  # as often as Prometheus looks
_TIMEOUT_S = 10.0
_MIB = 1024 * 1024
_ACCELERATED = ("CUDAExecutionProvider", "TensorrtExecutionProvider")


def watch_accelerator(provider: str, metrics: Metrics) -> Periodic | None:
    """Started where networks run on an NVIDIA GPU; None elsewhere."""
    if provider not in _ACCELERATED:
        return None
    watch = Periodic("accelerator", lambda: read_accelerators(metrics), _EVERY_S)
    watch.start()
    return watch


def read_accelerators(metrics: Metrics, tool: Sequence[str] = _TOOL) -> None:
    """Set the metrics. Raises DependencyUnavailable when the tool is not there or says something else."""
    try:
        done = subprocess.run(tool, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)  # noqa: S603 - a constant
        rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
        found = [(index, float(busy), float(used), float(total)) for index, busy, used, total in rows]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise DependencyUnavailable(
            f"nvidia-smi does not say how busy the GPU is: {type(error).__name__}.",
            advice="Operators: let the container have the driver's `utility` capability.",
        ) from error
    for index, busy_percent, used_mib, total_mib in found:
        metrics.embed_accelerator_busy_ratio.labels(index).set(busy_percent / 100)
        metrics.embed_accelerator_memory_bytes.labels(index, "used").set(used_mib * _MIB)
        metrics.embed_accelerator_memory_bytes.labels(index, "total").set(total_mib * _MIB)
