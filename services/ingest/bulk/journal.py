"""What a bulk load has submitted already, so that it goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from threading import Lock

import structlog


class Journal:
    """A file with a line an accepted image: its key and its enrolment_id.

    It only saves work. Without it, or with a part of it, the same images are sent again and the platform answers with
    the enrolments that it has.
    """

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._known = _read(path)
        self._file = path.open("a", encoding="utf-8")
        if self._file.tell() and not path.read_bytes().endswith(b"\n"):
            self._file.write("\n")  # so that the next line is not lost with the one cut off

    def enrolment_id(self, key: str) -> str | None:
        return self._known.get(key)

    def note(self, accepted: Mapping[str, str]) -> None:
        """Remember enrolment ids by key."""
        with self._lock:
            self._known.update(accepted)
            self._file.writelines(json.dumps([key, enrolment_id]) + "\n" for key, enrolment_id in accepted.items())
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def _read(path: Path) -> dict[str, str]:
    known: dict[str, str] = {}
    if not path.exists():
        return known
    for line in path.read_text("utf-8").splitlines():
        try:
            key, enrolment_id = json.loads(line)
        except ValueError:
            structlog.get_logger().warning("journal_line_ignored", path=str(path))  # cut off when it was stopped
            continue
        known[key] = enrolment_id
    return known
