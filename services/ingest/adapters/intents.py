"""Open intents as the ledger's store keeps them."""

from __future__ import annotations

import json

from services.ingest.ports import OpenIntent
from services.shared.tokens import Principal


def intent_json(intent: OpenIntent) -> str:
    principal = intent.principal
    return json.dumps(
        {
            "enrolment_id": intent.enrolment_id,
            "person_id": principal.person_id,
            "force": principal.force,
            "roles": sorted(principal.roles),
            "objects": list(intent.objects),
            "details": dict(intent.details),
        }
    )


def intent_from_json(text: str) -> OpenIntent:
    value = json.loads(text)
    return OpenIntent(
        value["enrolment_id"],
        Principal(value["person_id"], value["force"], frozenset(value["roles"]), frozenset()),
        tuple(value["objects"]),
        value["details"],
    )
