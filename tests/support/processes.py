"""Whether processes that are nobody's children any more have ended."""

from __future__ import annotations

import psutil


def has_ended(process: psutil.Process) -> bool:
    """A zombie has: it does nothing any more, and it may be long until somebody waits for an orphan."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
