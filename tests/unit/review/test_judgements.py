"""What was signed, as it is disclosed: the digest of each document is the one that the log holds."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path

import orjson
import pytest

from services.shared.canonical import canonical_bytes
from services.shared.errors import Forbidden, NotFound
from tests.unit.review.people import ANNA, BERT, OFFICER, SUE, Unit, person


def test_every_signed_remark_is_told_and_has_the_digest_of_the_log(tmp_path: Path) -> None:
    unit = Unit.open(tmp_path)
    case = unit.released()
    told = unit.desk.documents.judgements(SUE, case.request_id)
    # As it arrives over the wire.
    arrived = orjson.loads(orjson.dumps([dict(one) for one in told]))
    digests = {hashlib.sha256(canonical_bytes(one)).hexdigest() for one in arrived}
    logged = {entry["details"].get("judgement_sha256") for entry in unit.audit.entries} - {None}
    assert digests == logged
    assert [one["examiner"] for one in arrived] == ["anna", "bert"]
    assert {each["remarks"] for one in arrived for each in one["adjudications"]} == {"Compared feature by feature."}
    assert unit.audit.of("signed_judgements") == ["INTENT", "DONE"]


def test_who_may_not_have_the_pack_does_not_get_the_judgements(tmp_path: Path) -> None:
    unit = Unit.open(tmp_path)
    waiting = unit.decided()
    with pytest.raises(NotFound):
        unit.desk.documents.judgements(BERT, waiting.request_id)
    released = unit.desk.deciding.release(BERT, waiting.request_id, waiting.version, date(2026, 12, 1))
    with pytest.raises(Forbidden):
        unit.desk.documents.judgements(OFFICER, released.request_id)
    for stranger in (
        person("eve", "operator", force="eastmoor"),
        person("carl", "operator", watchlists=frozenset({"op_liberal"})),
    ):
        with pytest.raises(NotFound):
            unit.desk.documents.judgements(stranger, released.request_id)
    assert unit.desk.documents.judgements(ANNA, released.request_id)
