"""The consumer of custody images: the same use case as REST behind another door."""

from __future__ import annotations

from collections.abc import Collection

from services.ingest.acceptance import AcceptEnrolments
from services.ingest.checks import CUSTODIAN
from services.ingest.enrolment import EnrolReference, Source
from services.ingest.feed_messages import parse
from services.rpc.v1 import events_pb2
from services.shared.consume import InvalidMessage, MessageRejected, RecoverableError
from services.shared.errors import CallerError, Overloaded, PlatformError
from services.shared.ports.event_log import ReceivedEvent
from services.shared.tokens import Principal

FEED = "service:custody-feed"


class CustodyFeed:
    """Handles likeness.custody-image-received.v1. Who may write to the topic speaks for the owners it names; `owners`
    narrows that down."""

    def __init__(self, acceptance: AcceptEnrolments, owners: Collection[str]) -> None:
        self._acceptance = acceptance
        self._owners = frozenset(owners)

    def handle(self, event: ReceivedEvent) -> None:
        """Accept the image; the same event again changes nothing. Raises the named outcomes of the consume loop."""
        message = parse(event).message
        if not isinstance(message, events_pb2.CustodyImageReceived):
            raise InvalidMessage("unknown_topic", f"nothing is known to do with {event.topic}")
        if self._owners and message.owner not in self._owners:
            raise InvalidMessage("forbidden", f"this feed does not take images of {message.owner}")
        principal = Principal(FEED, message.owner, frozenset({CUSTODIAN}), frozenset({message.watchlist_id}))
        try:
            self._acceptance.accept(_command(message), principal, Source.KAFKA)
        except Overloaded as error:
            raise MessageRejected(error.detail) from error
        except CallerError as error:
            raise InvalidMessage(error.code, error.detail) from error
        except PlatformError as error:
            raise RecoverableError(error.detail) from error


def _command(message: events_pb2.CustodyImageReceived) -> EnrolReference:
    is_inline = message.WhichOneof("content") == "image"
    return EnrolReference(
        watchlist_id=message.watchlist_id,
        owner=message.owner,
        subject_id=message.subject_id,
        lawful_basis=message.lawful_basis,
        captured_on=message.captured_on,
        agreement_reference=message.agreement_reference,
        image=message.image if is_inline else None,
        image_sha256="" if is_inline else message.image_sha256,
    )
