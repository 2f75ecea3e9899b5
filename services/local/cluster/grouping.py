"""Faces grouped by who they are: average linkage on cosine, exact, one connected part of the graph at a time.

Two groups are joined while the mean similarity of their faces is at or over the threshold. Since some pair of them is
then over it too, no group reaches beyond a connected part of the graph of similar pairs: average linkage within each
part is the same as over everything, and needs memory for the largest part only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from services.shared.errors import ConfigurationError

# Mean cosine at and over which two groups are one person: B-cubed F is highest about here on the development faces, and
# in a larger folder two people in one group are the worse mistake (docs/probes.md).
SAME_PERSON = 0.38
_BLOCK = 2048
# Condensed distances of more take over half a gigabyte: such a part is cut by a stricter graph first.
_LARGEST_PART = 12_000
_STRICTER = 0.05

Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def group_faces(templates: Vectors, threshold: float = SAME_PERSON) -> Labels:
    """A group's number for each face (unit rows), the same for the same faces in the same order.

    Raises ConfigurationError without the extra `evaluate`.
    """
    labels = np.full(len(templates), -1, np.int64)
    following = 0
    for part in _parts(templates, np.arange(len(templates)), threshold):
        groups = _average_linkage(templates[part], threshold)
        labels[part] = groups + following
        following += int(groups.max()) + 1
    return labels


def _parts(templates: Vectors, places: Labels, threshold: float) -> Iterator[Labels]:
    """Connected parts of the graph of pairs at or over the threshold."""
    connected_components, csr_matrix, _, _ = _scipy()
    if len(places) == 0:
        return
    rows, columns = _similar_pairs(templates[places], threshold)
    graph = csr_matrix((np.ones(len(rows), np.bool_), (rows, columns)), shape=(len(places), len(places)))
    count, belongs = connected_components(graph, directed=False)
    order = np.argsort(belongs, kind="stable")
    for part in np.split(order, np.cumsum(np.bincount(belongs, minlength=count))[:-1]):
        if len(part) > _LARGEST_PART and threshold < 1:
            yield from _parts(templates, places[part], threshold + _STRICTER)
        else:
            yield places[part]


def _similar_pairs(templates: Vectors, threshold: float) -> tuple[Labels, Labels]:
    rows, columns = [], []
    for start in range(0, len(templates), _BLOCK):
        similar = templates[start : start + _BLOCK] @ templates[start:].T >= threshold
        one, other = np.nonzero(np.triu(similar, 1))
        rows.append(one + start)
        columns.append(other + start)
    return np.concatenate(rows), np.concatenate(columns)


def _average_linkage(templates: Vectors, threshold: float) -> Labels:
    if len(templates) == 1:
        return np.zeros(1, np.int64)
    _, _, linkage, fcluster = _scipy()
    above = np.triu_indices(len(templates), 1)
    distances = (1 - templates @ templates.T)[above].clip(0)
    return np.asarray(fcluster(linkage(distances, "average"), 1 - threshold, "distance"), np.int64) - 1


def _scipy() -> tuple[Any, ...]:
    try:
        from scipy.cluster.hierarchy import fcluster, linkage  # noqa: PLC0415 - an optional extra
        from scipy.sparse import csr_matrix  # noqa: PLC0415
        from scipy.sparse.csgraph import connected_components  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            "scipy is not installed.", advice="Install Likeness with the extra `evaluate`."
        ) from error
    return connected_components, csr_matrix, linkage, fcluster
