"""A folder's files told apart by content, and their faces found by embed; what is known already is not done again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from time import monotonic, sleep
from typing import Protocol

from services.local.cluster.work import ClusterWork, SeenFile
from services.rpc.v1 import embed_pb2
from services.shared.biometric import ImageAnalysis
from services.shared.errors import Conflict, DependencyUnavailable, ImageRefused, LikenessError, Overloaded
from services.shared.settings import MAX_IMAGE_BYTES

_PATIENCE_S = 60.0
_PAUSE_S = 0.5


class Analyser(Protocol):
    """What is needed of `EmbedClient`."""

    def analyse(
        self, image: bytes, selection: embed_pb2.AnalyseRequest.Selection.ValueType, face_index: int = 0
    ) -> ImageAnalysis: ...


def list_files(root: Path, work: ClusterWork, advance: Callable[[int], None]) -> int:
    """Bring the list of files up to date, digesting what is new or has changed; how many there are.

    Links are not followed: what a seized folder points to is not part of it.
    """
    known = work.known_files()
    there: list[SeenFile] = []
    for path in _regular_files(root):
        name, status = str(path.relative_to(root)), path.stat()
        held = known.pop(name, None)
        if held is None or (held.size_bytes, held.modified_ns) != (status.st_size, status.st_mtime_ns):
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            held = SeenFile(name, status.st_size, status.st_mtime_ns, digest)
        there.append(held)
        advance(1)
    work.put_files(there, known)
    return len(there)


def _regular_files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path


def look_at_pictures(
    root: Path, work: ClusterWork, embed: Analyser, callers: int, advance: Callable[[int], None]
) -> None:
    """Look at every content that is pending. What has been looked at is kept, however this ends.

    Raises DependencyUnavailable when embed does not answer for a minute.
    """
    waiting: dict[Future[ImageAnalysis], str] = {}
    with ThreadPoolExecutor(callers, thread_name_prefix="cluster") as pool:
        try:
            for sha256, path in work.pending():
                if len(waiting) >= 2 * callers:
                    _keep_finished(waiting, work, advance)
                waiting[pool.submit(_look_at, root / path, sha256, embed)] = sha256
            while waiting:
                _keep_finished(waiting, work, advance)
        finally:
            for future in waiting:
                future.cancel()


def _keep_finished(
    waiting: dict[Future[ImageAnalysis], str], work: ClusterWork, advance: Callable[[int], None]
) -> None:
    finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in finished:
        sha256 = waiting.pop(future)
        try:
            work.put_analysis(sha256, future.result())
        except DependencyUnavailable:
            raise
        except LikenessError as error:
            work.put_problem(sha256, error.code)
        except OSError:
            work.put_problem(sha256, "file_unreadable")
        advance(1)


def _look_at(path: Path, sha256: str, embed: Analyser) -> ImageAnalysis:
    if path.stat().st_size > MAX_IMAGE_BYTES:
        raise ImageRefused("The file is too large.", advice="Search it as a film.", code="image_too_large")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Conflict(f"{path.name} has changed meanwhile.", advice="Work on a copy.", code="file_changed")
    gives_up_at_s = monotonic() + _PATIENCE_S
    while True:
        try:
            return embed.analyse(content, embed_pb2.AnalyseRequest.ALL_WITH_CHIPS)
        except (Overloaded, DependencyUnavailable) as error:
            _go_on_unless_late(error, gives_up_at_s)
        sleep(_PAUSE_S)


def _go_on_unless_late(error: LikenessError, gives_up_at_s: float) -> None:
    if monotonic() > gives_up_at_s:
        raise error
