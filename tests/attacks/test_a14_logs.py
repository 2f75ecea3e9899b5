"""A14 without a browser: what strangers send makes no line of its own in a log."""

from __future__ import annotations

import json

import httpx

from tests.attacks.scene import Scene, as_bearer, open_client, picture
from tests.support.casework import post_search
from tests.support.platform import Platform

# Would be a line of its own, were it written as it comes; and a line that says that it was another service's.
FORGED = 'x\r\n{"event": "a14-forged", "level": "info"}\n'


def test_a14_nobody_makes_a_line_of_a_log(platform: Platform, scene: Scene) -> None:
    for service in ("search", "ingest", "audit", "review"):
        with open_client(platform, service, **as_bearer(scene.token("operator"))) as client:
            client.get(f"/v1/{httpx.QueryParams({'a': FORGED})}", headers={"User-Agent": 'a14 {"event": 1}'})
            client.get("/v1/nothing", params={"reason": FORGED})
    with open_client(platform, "search", **as_bearer(scene.token("operator"))) as client:
        assert post_search(client, picture(90), case_reference=FORGED).status_code == 422
        named = {"image": (FORGED, b"no picture", "image/png")}
        assert client.post("/v1/searches", data={"case_reference": "NC/A14"}, files=named).status_code == 422
    read = 0
    for log in platform.data.logs.glob("*.log"):
        *lines, _ = log.read_text("utf-8", "replace").split("\n")  # what is being written now has no end yet
        read += len(lines)
        for line in lines:
            # What libraries in C say of a failed handshake is no JSON; what strangers say stands in a field of ours.
            if "a14-forged" in line:
                assert json.loads(line)["event"] != "a14-forged", (log, line)
    assert read, "search says when its gallery is ready"
