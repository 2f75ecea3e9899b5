"""What is known so far of a folder of pictures: one SQLite file, so that a run that was stopped goes on.

It holds templates and chips of people: biometric data, readable by its owner alone, to be deleted with the case.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.shared.biometric import ImageAnalysis, Vector
from services.shared.errors import ConfigurationError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL, modified_ns INTEGER NOT NULL, sha256 TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS files_by_content ON files (sha256);
CREATE TABLE IF NOT EXISTS pictures (sha256 TEXT PRIMARY KEY, problem TEXT NOT NULL, faces INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS faces (
    sha256 TEXT NOT NULL, face INTEGER NOT NULL, template BLOB NOT NULL, chip BLOB NOT NULL,
    quality REAL NOT NULL, grade TEXT NOT NULL, inter_eye_px REAL NOT NULL, PRIMARY KEY (sha256, face)
);
"""


@dataclass(frozen=True, slots=True)
class SeenFile:
    """A file of the folder; `path` is relative to it."""

    path: str
    size_bytes: int
    modified_ns: int
    sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class FoundFace:
    """One face of one picture. `face` is its index in reading order, as `likeness identify --face` takes it."""

    sha256: str
    face: int
    template: Vector
    chip: bytes
    quality: float
    grade: str
    inter_eye_px: float


class ClusterWork:
    """One thread's."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.close(descriptor)
        self._connection = sqlite3.connect(path)
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        self._connection.close()

    def require(self, name: str, value: str) -> None:
        """The first run sets it, every other has to agree. Raises ConfigurationError."""
        with self._connection:
            self._connection.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, value))
        (held,) = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        if held != value:
            raise ConfigurationError(
                f"This work was begun with the {name} {held}, not {value}.", advice="Give another --out folder."
            )

    def known_files(self) -> dict[str, SeenFile]:
        return {row[0]: SeenFile(*row) for row in self._connection.execute("SELECT * FROM files")}

    def put_files(self, files: Iterable[SeenFile], gone: Iterable[str]) -> None:
        """Files as they are now; those that are gone are no longer listed."""
        with self._connection:
            self._connection.executemany("DELETE FROM files WHERE path = ?", ((path,) for path in gone))
            self._connection.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                ((file.path, file.size_bytes, file.modified_ns, file.sha256) for file in files),
            )

    def pending(self) -> list[tuple[str, str]]:
        """(sha256, a path) of every picture that has not been looked at, each content once."""
        return self._connection.execute(
            "SELECT sha256, MIN(path) FROM files WHERE sha256 NOT IN (SELECT sha256 FROM pictures) GROUP BY sha256 "
            "ORDER BY MIN(path)"
        ).fetchall()

    def put_analysis(self, sha256: str, analysis: ImageAnalysis) -> None:
        rows = [
            (
                sha256,
                index,
                face.template.vector.astype("<f4").tobytes(),
                face.chip,
                face.quality.unified,
                face.assessment.grade if face.assessment else "",
                face.inter_eye_px,
            )
            for index, face in enumerate(analysis.faces)
            if face.template is not None
        ]
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO pictures VALUES (?, '', ?)", (sha256, len(rows)))
            self._connection.executemany("INSERT OR REPLACE INTO faces VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def put_problem(self, sha256: str, code: str) -> None:
        """A file that is no picture, or one that the gate refuses; by its code."""
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO pictures VALUES (?, ?, 0)", (sha256, code))

    def faces(self) -> Sequence[FoundFace]:
        """Of files that are still there, in a fixed order."""
        rows = self._connection.execute(
            "SELECT * FROM faces WHERE sha256 IN (SELECT sha256 FROM files) ORDER BY sha256, face"
        )
        return [
            FoundFace(sha256, face, np.frombuffer(template, "<f4").astype(np.float32), *rest)
            for sha256, face, template, *rest in rows
        ]

    def problems(self) -> dict[str, int]:
        """How many contents had which problem; `no_face_found` for pictures without a face."""
        rows = self._connection.execute(
            "SELECT CASE WHEN problem = '' THEN 'no_face_found' ELSE problem END, COUNT(*) FROM pictures "
            "WHERE faces = 0 AND sha256 IN (SELECT sha256 FROM files) GROUP BY 1 ORDER BY 2 DESC"
        )
        return dict(rows.fetchall())

    def unread(self) -> dict[str, str]:
        """The contents in which no face could be looked for, and why."""
        rows = self._connection.execute("SELECT sha256, problem FROM pictures WHERE problem != ''")
        return dict(rows.fetchall())
