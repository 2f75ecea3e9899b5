"""Which steps beyond the naive pipeline help, judged on people they were not tuned on.

Every step is built on OpenCV's own pipeline, so that it stands alone. The only quantity taken from data is the cohort's
mean template: it is measured on one half of the people and used on the other, eight times over with other halves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from services.local.evaluation.labelled_set import LabelledSet, LabelledStill
from services.local.evaluation.metrics import threshold_at_fpir
from services.local.evaluation.records import Run
from services.local.evaluation.searching import LIST_LENGTH
from services.shared.packages import cache_folder
from tests.accuracy.naive import (
    OpenCvPipeline,
    Pixels,
    Templates,
    Vectors,
    cache_key,
    decode,
    eyes_px,
    most_prominent,
    save,
)
from tests.accuracy.offline import search_offline

SIDE = 112
REFERENCE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
LOOK_PX, LOOK_SHARES = 160, (0.6, 0.9)
ENLARGED, SMOOTHING_PX = 1.2, 0.6
HALVINGS = 8
FPIRS = (0.1, 0.01)


@dataclass(frozen=True, slots=True)
class Step:
    """What is done beyond the naive pipeline."""

    title: str
    looks_again: bool = False
    is_smoothed: bool = False
    is_mirrored: bool = False
    takes_mean: bool = False


STEPS = (
    Step("naive"),
    Step("+ mirror", is_mirrored=True),
    Step("+ mean", takes_mean=True),
    Step("+ landmarks", looks_again=True),
    Step("+ landmarks, mean", looks_again=True, takes_mean=True),
    Step("+ landmarks, mean, mirror", looks_again=True, is_mirrored=True, takes_mean=True),
    Step("+ landmarks, mean, smoothing", looks_again=True, is_smoothed=True, takes_mean=True),
    Step("+ landmarks, mean, smoothing, mirror", looks_again=True, is_smoothed=True, is_mirrored=True, takes_mean=True),
)


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Unit vectors of each still's face as it is, smoothed where it was enlarged, and each of them mirrored."""

    templates: Templates
    plain: Vectors
    mirrored: Vectors
    smoothed: Vectors
    smoothed_mirrored: Vectors

    def of(self, step: Step) -> Vectors:
        own, mirror = (self.smoothed, self.smoothed_mirrored) if step.is_smoothed else (self.plain, self.mirrored)
        return _unit(own + mirror) if step.is_mirrored else own


def similarity(landmarks: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares rotation, uniform scale and shift (Umeyama 1991)."""
    p, q = landmarks - landmarks.mean(axis=0), target - target.mean(axis=0)
    spread = (p * p).sum()
    cosine, sine = (p * q).sum() / spread, (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum() / spread
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, target.mean(axis=0) - linear @ landmarks.mean(axis=0)])


def look_again(pipeline: OpenCvPipeline, pixels: Pixels, landmarks: np.ndarray) -> np.ndarray:
    """The mean of the landmarks and those found in two upright crops of the face."""
    estimates = [landmarks]
    for share in LOOK_SHARES:
        target = (REFERENCE_POINTS - SIDE / 2) * (share * LOOK_PX / SIDE) + LOOK_PX / 2
        there = similarity(landmarks, target)
        crop = np.asarray(cv2.warpAffine(pixels, there, (LOOK_PX, LOOK_PX), flags=cv2.INTER_LINEAR), np.uint8)
        rows = pipeline.detect(crop)
        if len(rows):
            points = most_prominent(rows)[4:14].reshape(5, 2).astype(np.float64)
            estimates.append(np.linalg.solve(there[:, :2], (points - there[:, 2]).T).T)
    return np.asarray(np.mean(estimates, axis=0))


def _unit(vectors: np.ndarray) -> Vectors:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-9), np.float32)


def measure_views(
    pipeline: OpenCvPipeline,
    stills: Sequence[LabelledStill],
    name: str,
    files: Callable[[int], bytes | None],
    *,
    looks_again: bool,
) -> Views:
    """All views of all stills under one condition, kept in the cache; stills without a file are left out."""
    path = cache_folder() / "accuracy" / f"{cache_key(f'views 640 {name} {looks_again}', pipeline, stills)}.npz"
    if not path.is_file():
        _measure(path, pipeline, stills, files, looks_again)
    with np.load(path) as held:
        templates = Templates(held["views"][:, 0], held["is_found"], held["inter_eye_px"])
        return Views(templates, *(held["views"][:, place] for place in range(4)))


def _measure(
    path: Path,
    pipeline: OpenCvPipeline,
    stills: Sequence[LabelledStill],
    files: Callable[[int], bytes | None],
    looks_again: bool,
) -> None:
    views = np.zeros((len(stills), 4, 128), np.float32)
    found, eyes = np.zeros(len(stills), np.bool_), np.zeros(len(stills), np.float32)
    for place in range(len(stills)):
        file = files(place)
        if file is None:
            continue
        pixels = decode(file)
        rows = pipeline.detect(pixels)
        if not len(rows):
            continue
        row = most_prominent(rows)
        landmarks = row[4:14].reshape(5, 2).astype(np.float64)
        if looks_again:
            landmarks = look_again(pipeline, pixels, landmarks)
        found[place], eyes[place] = True, eyes_px(row)
        views[place] = _views(pipeline, pixels, landmarks)
    save(path, views=views, is_found=found, inter_eye_px=eyes)


def _views(pipeline: OpenCvPipeline, pixels: Pixels, landmarks: np.ndarray) -> np.ndarray:
    there = similarity(landmarks, REFERENCE_POINTS)
    face = np.asarray(cv2.warpAffine(pixels, there, (SIDE, SIDE), flags=cv2.INTER_LINEAR), np.uint8)
    plain = [pipeline.vector(face), pipeline.vector(np.ascontiguousarray(face[:, ::-1]))]
    enlargement = float(np.hypot(there[0, 0], there[0, 1]))
    if enlargement < ENLARGED:
        return np.stack([*plain, *plain])
    soft = np.asarray(cv2.GaussianBlur(face, (0, 0), SMOOTHING_PX * enlargement), np.uint8)
    return np.stack([*plain, pipeline.vector(soft), pipeline.vector(np.ascontiguousarray(soft[:, ::-1]))])


@dataclass(frozen=True, slots=True)
class StepResult:
    """Means over the halves."""

    step: Step
    rank_1: float
    tpir: dict[float, float]


def judge_step(labelled: LabelledSet, step: Step, probes: Views, gallery: Views) -> StepResult:
    """Rank 1 and TPIR, averaged over people that the mean was not measured on."""
    names = sorted({still.identity for still in labelled.stills})
    halves: list[frozenset[str]] = []
    for seed in range(HALVINGS):
        order = np.random.default_rng(seed).permutation(len(names))
        chosen = frozenset(names[place] for place in order[: len(names) // 2])
        halves += [chosen, frozenset(names) - chosen]
    means = np.mean([_judge_half(labelled, step, probes, gallery, half) for half in halves], axis=0)
    return StepResult(step, float(means[0]), dict(zip(FPIRS, (float(value) for value in means[1:]), strict=True)))


def _judge_half(
    labelled: LabelledSet, step: Step, probes: Views, gallery: Views, judged: frozenset[str]
) -> tuple[float, ...]:
    ours, theirs = probes.of(step), gallery.of(step)
    if step.takes_mean:
        others = [place for place, still in enumerate(labelled.stills) if still.identity not in judged]
        known = [place for place in others if gallery.templates.is_found[place]]
        mean = theirs[known].mean(axis=0)
        ours, theirs = _unit(ours - mean), _unit(theirs - mean)
    run = search_offline(
        labelled,
        replace(probes.templates, vectors=ours),
        replace(gallery.templates, vectors=theirs),
        leave_one_out=False,
    ).where(lambda result: result.identity in judged)
    return _figures(run)


def _figures(run: Run) -> tuple[float, ...]:
    mated, other = run.mated(), run.non_mated_leaving_one_out()
    at = [float(mated.is_hit(LIST_LENGTH, threshold_at_fpir(other, wished)).mean()) for wished in FPIRS]
    return float(mated.is_hit(1).mean()), *at
