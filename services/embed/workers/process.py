"""Starting and ending worker processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import services

# So that a worker finds the same packages wherever it is started.
_ROOT = str(Path(services.__file__).resolve().parent.parent)


def start_module(
    module: str, arguments: Sequence[str], descriptors: Sequence[int], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """`python -m module arguments`, with these descriptors and this environment and nothing else of ours."""
    environment = {"PYTHONPATH": _ROOT, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(  # noqa: S603 - our own module, no shell, no foreign text among the arguments
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=list(descriptors),
        env=environment,
        close_fds=True,
    )


def end_process(process: subprocess.Popen[bytes], *, patience_s: float = 0.0) -> int:
    """Make sure that it is gone; its exit status, negative for a signal."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(patience_s)
    process.kill()
    return process.wait()
