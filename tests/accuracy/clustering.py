"""How well faces are grouped by who they are: B-cubed precision and recall (Bagga and Baldwin 1998) over thresholds."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import cv2
import numpy as np
import numpy.typing as npt

from services.embed.faces.analyser import PictureJob
from services.embed.faces.picture import Picture
from services.embed.ports import Selection
from services.local.cluster.grouping import group_faces
from services.local.evaluation.degrade import inter_eye_jpeg
from services.local.evaluation.labelled_set import LabelledSet
from services.shared.biometric import DetectedFace
from services.shared.packages import cache_folder
from tests.accuracy.naive import decode
from tests.accuracy.quality_data import in_process_analyser

Labels = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
THRESHOLDS = (0.20, 0.24, 0.28, 0.30, 0.32, 0.36, 0.40, 0.44)


def b_cubed(found: npt.ArrayLike, true: npt.ArrayLike) -> tuple[float, float, float]:
    """Precision, recall and F: for each face, of those grouped with it the share that is the same person, and of the
    same person the share that is grouped with it; means over the faces.
    """
    groups, people = np.asarray(found), np.asarray(true)
    together = groups[:, None] == groups[None, :]
    same = people[:, None] == people[None, :]
    both = (together & same).sum(axis=1)
    precision, recall = float((both / together.sum(axis=1)).mean()), float((both / same.sum(axis=1)).mean())
    return precision, recall, 2 * precision * recall / (precision + recall)


def chinese_whispers(templates: Vectors, threshold: float, rounds: int = 20) -> Labels:
    """Biemann 2006, the usual way to group faces: each face takes the label that weighs most among its neighbours."""
    similar = templates @ templates.T
    np.fill_diagonal(similar, 0)
    similar[similar < threshold] = 0
    labels = np.arange(len(templates))
    draw = np.random.default_rng(1)
    for _ in range(rounds):
        for place in draw.permutation(len(templates)):
            neighbours = np.flatnonzero(similar[place])
            if len(neighbours):
                weights = np.bincount(labels[neighbours], similar[place][neighbours])
                labels[place] = int(weights.argmax())
    return labels


def templates_of(labelled: LabelledSet, seconds: float) -> tuple[Vectors, npt.NDArray[np.str_]]:
    """Of the most prominent face of each still as `likeness cluster` has it, every third made small and blocky."""
    cv2.setNumThreads(1)
    path = cache_folder() / "accuracy" / "cluster_templates.npz"
    held: dict[str, Vectors] = {}
    if path.is_file():
        with np.load(path) as file:
            held = dict(zip(file["names"].tolist(), file["vectors"], strict=True))
    analyser, _ = in_process_analyser()
    worse = inter_eye_jpeg(24, 40)
    ends_at = monotonic() + seconds
    for place, still in enumerate(labelled.stills):
        if still.name in held or monotonic() > ends_at:
            continue
        pixels = decode(still.path.read_bytes())
        [seen] = analyser.analyse([PictureJob(Picture(pixels, 1), Selection.NONE)])
        if place % 3 == 0 and seen.faces:
            eyes = max(seen.faces, key=_prominence).inter_eye_px
            pixels = decode(worse.apply(still.path.read_bytes(), eyes))
        [result] = analyser.analyse([PictureJob(Picture(pixels, 1), Selection.ALL)])
        if result.faces:
            template = max(result.faces, key=_prominence).template
            held[still.name] = np.zeros(128, np.float32) if template is None else template.vector
    np.savez(path, names=np.array(list(held)), vectors=np.stack(list(held.values())))
    stills = [still for still in labelled.stills if still.name in held]
    return np.stack([held[still.name] for still in stills]), np.array([still.identity for still in stills])


def _prominence(face: DetectedFace) -> float:
    return face.box.width * face.box.height * face.detection_score


def clustering_table(labelled: LabelledSet, seconds: float) -> str:
    templates, people = templates_of(labelled, seconds)
    ways: dict[str, Callable[[float], Labels]] = {
        "average linkage": lambda threshold: group_faces(templates, threshold),
        "Chinese whispers": lambda threshold: chinese_whispers(templates, threshold),
    }
    lines = [f"{len(templates)} faces of {len(set(people.tolist()))} people", ""]
    lines += ["| way | threshold | groups | precision | recall | F |", "|---|---|---|---|---|---|"]
    for name, way in ways.items():
        for threshold in THRESHOLDS:
            labels = way(threshold)
            precision, recall, both = b_cubed(labels, people)
            count = len(np.unique(labels))
            lines.append(f"| {name} | {threshold:.2f} | {count} | {precision:.4f} | {recall:.4f} | {both:.4f} |")
    return "\n".join(lines)
