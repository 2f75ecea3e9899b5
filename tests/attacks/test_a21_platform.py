"""A21 over the whole platform: the templates of a face that was enrolled and of one that was searched, looked for in
all that is told and in all that is kept. At rest a template is sealed. What search says by every role, good requests
and bad, is in tests/attacks/test_a21_templates.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from services.local.deployment import SERVICES
from services.local.issuer import ROLES
from services.rpc.clients import EmbedClient
from services.rpc.v1 import embed_pb2
from tests.attacks.route_table import table
from tests.attacks.scene import Scene, as_bearer, open_client, picture
from tests.attacks.test_a21_templates import forms_of
from tests.support.platform import Platform

ENROLLED, SEARCHED = 1, 2  # the pictures of the scene


@pytest.fixture(scope="module")
def forms(platform: Platform, scene: Scene) -> list[bytes]:
    """Every way in which one of the two templates could be written down."""
    with platform.channel("embed", "search") as channel:
        embed = EmbedClient(channel)
        seeds = (ENROLLED, SEARCHED, ENROLLED)
        found = [embed.analyse(picture(seed), embed_pb2.AnalyseRequest.LARGEST) for seed in seeds]
    vectors = [face.template.vector for analysis in found for face in analysis.faces if face.template is not None]
    assert len(vectors) == 3
    assert np.array_equal(vectors[0], vectors[2]), "the same picture has the same template"
    return [form for vector in vectors[:2] for form in forms_of(np.asarray(vector))]


def _told(platform: Platform, scene: Scene) -> Iterator[tuple[str, bytes]]:
    """Every route that only reads, by a role that may; every metric."""
    ids = {"enrolment_id": scene.ids["enrolment"], "request_id": scene.kept["request"]}
    for route in table():
        if route.method != "GET" or not set(re.findall(r"{(\w+)", route.path)) <= ids.keys():
            continue
        with open_client(platform, route.service, **as_bearer(scene.token(min(route.roles)))) as client:
            answer = client.get(route.path.format_map(ids), params=dict(route.query))
        yield f"{route}", answer.content
    for service in SERVICES:
        yield f"/metrics of {service}", httpx.get(platform.url(service, "/metrics"), trust_env=False).content


def _kept(platform: Platform) -> Iterator[tuple[str, bytes]]:
    """Every file of the platform: logs, the audit log, the ledger, events, pictures, whatever else."""
    root = platform.data.root
    for folder, _, names in os.walk(root):  # which passes over a folder that is gone meanwhile
        for path in (Path(folder) / name for name in names):
            try:
                content = path.read_bytes()
            except OSError:
                continue  # a journal, a spool, a socket
            yield str(path.relative_to(root)), content


def test_a21_no_template_is_told_or_kept_in_clear(platform: Platform, scene: Scene, forms: list[bytes]) -> None:
    looked = set()
    for where, content in (*_told(platform, scene), *_kept(platform)):
        looked.add(where)
        assert not [form for form in forms if form in content], f"a template leaves through {where}"
    assert {"audit/audit.sqlite", "ingest/ingest.sqlite", "events.sqlite", "logs/search.log"} <= looked


def test_a21_no_role_has_a_route_to_a_template() -> None:
    words = ("template", "embedding", "vector", "descriptor", "distance")
    assert not [str(route) for route in table() if any(word in route.path for word in words)]
    assert {role for route in table() for role in route.roles} <= set(ROLES)
