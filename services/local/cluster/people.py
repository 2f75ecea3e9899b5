"""From groups of faces to people: who is on which files, the best face of each first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.local.cluster.grouping import group_faces
from services.local.cluster.work import ClusterWork, FoundFace

# A face this poor groups with anybody: it stands apart.
UNSUITABLE = "unsuitable"


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """A group of faces. `paths` are the files that show one of them, copies of a file included."""

    number: int
    faces: tuple[FoundFace, ...]
    paths: tuple[str, ...]

    @property
    def best(self) -> FoundFace:
        return self.faces[0]


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that came of a folder. `people` are in falling order of the files that show them.

    `unread`: the files in which nobody could be looked for, and why: somebody may be on them.
    """

    files: int
    contents: int
    people: tuple[Person, ...]
    poor: tuple[FoundFace, ...]
    problems: Mapping[str, int]
    paths_of: Mapping[str, Sequence[str]]
    unread: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """No template and no chip: who is on which file, and how to search them."""
        return {
            "files": self.files,
            "contents": self.contents,
            "problems": dict(self.problems),
            "unread": [{"file": path, "reason": reason} for path, reason in self.unread],
            "people": [
                {
                    "person": person.number,
                    "files": list(person.paths),
                    "faces": [self._face(face) for face in person.faces],
                }
                for person in self.people
            ],
            "too_poor_to_group": [self._face(face) for face in self.poor],
        }

    def _face(self, face: FoundFace) -> dict[str, Any]:
        return {
            "sha256": face.sha256,
            "file": self.paths_of[face.sha256][0],
            "face": face.face,
            "quality": round(face.quality, 1),
            "grade": face.grade,
            "inter_eye_px": round(face.inter_eye_px, 1),
        }


def find_people(work: ClusterWork, threshold: float) -> Findings:
    """Group what the work holds. Raises ConfigurationError without scipy."""
    faces = work.faces()
    good = [face for face in faces if face.grade != UNSUITABLE]
    paths_of: dict[str, list[str]] = defaultdict(list)
    for file in sorted(work.known_files().values(), key=lambda file: file.path):
        paths_of[file.sha256].append(file.path)
    found = [_person(0, members, paths_of) for members in _grouped(good, threshold)]
    found.sort(key=lambda person: (-len(person.paths), -person.best.quality, person.best.sha256, person.best.face))
    people = tuple(Person(number, person.faces, person.paths) for number, person in enumerate(found, start=1))
    poor = tuple(sorted((face for face in faces if face.grade == UNSUITABLE), key=_best_first))
    files = sum(len(paths) for paths in paths_of.values())
    unread = sorted((path, code) for sha256, code in work.unread().items() for path in paths_of.get(sha256, ()))
    return Findings(files, len(paths_of), people, poor, work.problems(), paths_of, tuple(unread))


def _grouped(faces: Sequence[FoundFace], threshold: float) -> Iterable[list[FoundFace]]:
    if not faces:
        return ()
    groups: dict[int, list[FoundFace]] = defaultdict(list)
    labels = group_faces(np.stack([face.template for face in faces]), threshold)
    for label, face in zip(labels.tolist(), faces, strict=True):
        groups[label].append(face)
    return groups.values()


def _person(number: int, members: list[FoundFace], paths_of: Mapping[str, Sequence[str]]) -> Person:
    paths = sorted({path for face in members for path in paths_of[face.sha256]})
    return Person(number, tuple(sorted(members, key=_best_first)), tuple(paths))


def _best_first(face: FoundFace) -> tuple[float, str, int]:
    return -face.quality, face.sha256, face.face
