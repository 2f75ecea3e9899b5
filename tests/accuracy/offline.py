"""1:N searches without a platform: a score matrix judged as the platform's candidate lists are.

For research only: templates of pictures in a developer's hands, from OpenCV or from embed's internal gRPC.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.local.evaluation.evaluation import AS_THEY_ARE
from services.local.evaluation.labelled_set import LabelledSet, LabelledStill
from services.local.evaluation.records import ListedSubject, ProbeResult, Run, judge, not_acquired
from services.local.evaluation.searching import LIST_LENGTH
from services.rpc.clients import EmbedClient, open_channel
from services.rpc.v1 import embed_pb2
from services.shared.errors import ImageRefused
from tests.accuracy.naive import Templates, Vectors


def search_offline(
    labelled: LabelledSet, probes: Templates, gallery: Templates, condition: str = AS_THEY_ARE, *, leave_one_out: bool
) -> Run:
    """Every probe against every enrolled still. Rows of `probes` and `gallery` are those of `labelled.stills`."""
    place_of = {still.name: place for place, still in enumerate(labelled.stills)}
    enrolled = [still for still in labelled.enrolled if gallery.is_found[place_of[still.name]]]
    rows = np.array([place_of[still.name] for still in enrolled])
    identities = {still.identity for still in labelled.enrolled}

    def one(still: LabelledStill, *, is_mated: bool) -> ProbeResult:
        place = place_of[still.name]
        if not probes.is_found[place]:
            return not_acquired(still, "no_face_found", is_mated=is_mated)
        return judge(
            still,
            candidates(enrolled, gallery.vectors[rows] @ probes.vectors[place]),
            is_mated=is_mated,
            quality=None,
            inter_eye_px=float(probes.inter_eye_px[place]),
            faces=1,
        )

    found = tuple(one(still, is_mated=still.identity in identities) for still in labelled.probes)
    left_out = tuple(one(still, is_mated=False) for still in enrolled) if leave_one_out else ()
    return Run(condition, found, left_out)


def candidates(enrolled: Sequence[LabelledStill], scores: Vectors) -> list[ListedSubject]:
    """The best reference of each subject, best first, as long as the platform's longest list."""
    listed: dict[str, ListedSubject] = {}
    for place in np.argsort(-scores, kind="stable"):
        still = enrolled[place]
        listed.setdefault(still.identity, ListedSubject(still.identity, float(scores[place]), still.name))
        if len(listed) == LIST_LENGTH:
            break
    return list(listed.values())


def embed_templates(address: str, stills: Sequence[LabelledStill]) -> Templates:
    """Templates from a running embed service, over the internal gRPC that no API offers."""
    vectors, found = np.zeros((len(stills), 128), np.float32), np.zeros(len(stills), np.bool_)
    eyes = np.zeros(len(stills), np.float32)
    with open_channel(address) as channel:
        client = EmbedClient(channel)
        for place, still in enumerate(stills):
            try:
                analysis = client.analyse(still.path.read_bytes(), embed_pb2.AnalyseRequest.LARGEST)
            except ImageRefused:
                continue
            for face in analysis.faces:
                if face.template is not None:
                    vectors[place], found[place], eyes[place] = face.template.vector, True, face.inter_eye_px
    return Templates(vectors, found, eyes)
