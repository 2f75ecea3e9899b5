"""`python -m tests.accuracy.flags`: how often the packaged flag points are right and wrong on the development faces.

Templates come from an embed process as the platform runs it and are kept under LIKENESS_CACHE by model.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from services.rpc.clients import EmbedClient
from services.rpc.v1 import embed_pb2
from services.search.neighbours.points import FlagPoints, FlagPointsFile
from services.shared.biometric import DetectedFace
from services.shared.errors import ImageRefused
from services.shared.packages import cache_folder
from tests.accuracy.naive import Vectors
from tests.support.faces import DevelopmentFaces, development_faces
from tests.support.platform import Platform

_EVERY = 12  # every so many stills is copied in other ways
_TRIALS = 4000
_MIN_YAW_SCORE = 50.0  # as services/ingest/adapters/sql_flags.py compares
Copy = Callable[[Image.Image], tuple[Image.Image, int]]
COPIES: Mapping[str, Copy] = {
    "saved again as JPEG 60": lambda image: (image, 60),
    "half the size": lambda image: (image.resize((max(1, image.width // 2), max(1, image.height // 2))), 85),
    "edges cut by 5 %": lambda image: (ImageOps.crop(image, image.width // 20), 90),
    "mirrored": lambda image: (ImageOps.mirror(image), 90),
    "a fifth brighter": lambda image: (image.point(lambda value: min(255, value * 1.2)), 90),
}


def measure(client: EmbedClient, faces: DevelopmentFaces, path: Path) -> None:
    """Templates of all stills, and likeness of some to copies of themselves."""

    def face_of(content: bytes) -> DetectedFace | None:
        try:
            found = client.analyse(content, embed_pb2.AnalyseRequest.LARGEST, timeout_s=60).faces
        except ImageRefused:
            return None
        return next((face for face in found if face.template is not None), None)

    vectors: list[Vectors] = []
    people: list[str] = []
    yaws: list[float] = []
    copies: dict[str, list[float]] = {name: [] for name in COPIES}
    for place, still in enumerate(faces.stills):
        face = face_of(still.path.read_bytes())
        if face is None or face.template is None:
            continue
        vectors.append(face.template.vector)
        people.append(still.identity)
        yaws.append(face.quality.components.get("yaw", 100.0))
        for name, copy in COPIES.items() if place % _EVERY == 0 else ():
            image, quality = copy(Image.open(still.path).convert("RGB"))
            stream = io.BytesIO()
            image.save(stream, "JPEG", quality=quality)
            other = face_of(stream.getvalue())
            if other is not None and other.template is not None:
                copies[name].append(float(other.template.vector @ face.template.vector))
    kept: dict[str, Any] = {f"copy {name}": np.array(scores) for name, scores in copies.items()}
    np.savez(path, vectors=np.stack(vectors), people=np.array(people), yaws=np.array(yaws), **kept)


def pairs_table(scores: npt.NDArray[np.float64], is_one_person: npt.NDArray[np.bool_], points: FlagPoints) -> str:
    """Pairs at or over each point, and how the tail of different people falls."""
    mated, others = scores[is_one_person], np.sort(scores[~is_one_person])[::-1]
    lines = [f"{len(others)} pairs of different people, {len(mated)} of one; highest of different: {others[0]:.3f}"]
    for name in ("same_person", "strong", "near_identical"):
        point = getattr(points, name)
        share = (mated >= point).mean()
        lines.append(f"{name} {point}: {(others >= point).sum()} different, {share:.3f} of one person")
    tails = ", ".join(f"1 in {10**power} at {others[len(others) // 10**power]:.3f}" for power in (2, 3, 4, 5))
    return "\n".join([*lines, f"different people: {tails}"])


def subjects_table(
    matrix: npt.NDArray[np.float64], people: npt.NDArray[np.str_], frontal: npt.NDArray[np.bool_], points: FlagPoints
) -> str:
    """A subject split in two: found or not. An image under its own subject and under another's: unlike or not."""
    several = [name for name in np.unique(people) if (people == name).sum() > 1]
    found = {"one image each": 0, "half of the images each": 0}
    for name in several:
        own = np.flatnonzero(people == name)
        half = len(own) // 2
        found["one image each"] += matrix[own[0], own[1]] >= points.same_person
        found["half of the images each"] += matrix[np.ix_(own[:half], own[half:])].max() >= points.same_person
    lines = [f"{len(several)} people as two subjects, {name}: {count} found" for name, count in found.items()]
    best = [
        matrix[place][mask].max()
        for place in np.flatnonzero(frontal)
        if (mask := (people == people[place]) & frontal & (np.arange(len(people)) != place)).any()
    ]
    lines.append(f"{len(best)} images under their own subject: {sum(score < points.unlike for score in best)} unlike")
    random = np.random.default_rng(1)
    for count in (1, 2, 4):
        hosts = [name for name in np.unique(people) if ((people == name) & frontal).sum() >= count]
        flagged = [_is_flagged(matrix, people, frontal, points, hosts, count, random) for _ in range(_TRIALS)]
        told = [each for each in flagged if each is not None]
        lines.append(f"{len(told)} images under another's subject of {count} images: {np.mean(told):.3f} unlike")
    return "\n".join(lines)


def _is_flagged(  # noqa: PLR0917 - the state of one trial
    matrix: npt.NDArray[np.float64],
    people: npt.NDArray[np.str_],
    frontal: npt.NDArray[np.bool_],
    points: FlagPoints,
    hosts: list[str],
    count: int,
    random: np.random.Generator,
) -> bool | None:
    """None where the trial drew the right subject."""
    host = hosts[random.integers(len(hosts))]
    own = random.choice(np.flatnonzero((people == host) & frontal), count, replace=False)
    place = random.choice(np.flatnonzero(frontal))
    return None if people[place] == host else bool(matrix[place][own].max() < points.unlike)


def main() -> None:
    faces = development_faces()
    with (
        tempfile.TemporaryDirectory(prefix="likeness-flags-") as folder,
        Platform(Path(folder), services=("embed",)) as platform,
        platform.channel("embed", "ingest") as channel,
    ):
        client = EmbedClient(channel)
        model = client.describe_model()
        path = cache_folder() / "accuracy" / f"flags-{model.model_id}.npz"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            measure(client, faces, path)
    points = FlagPointsFile().find(model)
    if points is None:
        raise SystemExit(f"no flag points for {model.model_id}")
    with np.load(path) as held:
        vectors, people, yaws = held["vectors"].astype(np.float64), held["people"], held["yaws"]
        copies = {name: held[name] for name in held.files if name.startswith("copy ")}
    matrix = vectors @ vectors.T
    rows, columns = np.triu_indices(len(vectors), 1)
    print(f"{model.model_id}\n{points.version}\n{len(vectors)} stills of {len(np.unique(people))} people")
    print(pairs_table(matrix[rows, columns], people[rows] == people[columns], points))
    for name, scores in copies.items():
        print(f"{name}: {(scores >= points.duplicate).mean():.3f} of {len(scores)} at or over duplicate")
    print(subjects_table(matrix, people, yaws >= _MIN_YAW_SCORE, points))


if __name__ == "__main__":
    main()
