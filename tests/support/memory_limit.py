"""A limit of memory that the kernel keeps, for processes that run: who goes beyond it is killed, as in a container."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.waiting import wait_until

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A control group of version 1 or 2. What its members had before they joined counts for others."""

    folder: Path
    home: Path

    def add(self, processes: Iterable[psutil.Process]) -> None:
        for process in processes:
            (self.folder / "cgroup.procs").write_text(str(process.pid))

    def kills(self) -> int:
        """How many the kernel has killed here for want of memory."""
        told = next(each for each in ("memory.oom_control", "memory.events") if (self.folder / each).exists())
        counts = dict(line.split() for line in (self.folder / told).read_text("ascii").splitlines())
        return int(counts.get("oom_kill", 0))

    def _empty(self) -> bool:
        for pid in (self.folder / "cgroup.procs").read_text("ascii").split():
            try:
                (self.home / "cgroup.procs").write_text(pid)
            except OSError:
                return False  # it ends
        return True


@contextmanager
def memory_group(name: str, limit_bytes: int) -> Iterator[MemoryGroup]:
    """Skips the test where this user, or this kernel, has no such groups."""
    home = _ROOT / "memory" if (_ROOT / "memory").is_dir() else _ROOT
    limit = "memory.limit_in_bytes" if home != _ROOT else "memory.max"
    group = MemoryGroup(home / f"{name}-{os.getpid()}", home)
    try:
        group.folder.mkdir()
    except OSError as error:
        pytest.skip(f"needs the right to make a control group: {error.strerror}")
    try:
        if not (group.folder / limit).exists():
            pytest.skip("this kernel limits no memory by control groups")
        (group.folder / limit).write_text(str(limit_bytes))
        yield group
    finally:
        wait_until(group._empty, 60, "the members of the group to be gone")
        group.folder.rmdir()
