"""Identifiers: UUIDv7, so that ids sort by the time they were made (RFC 9562)."""

import uuid_utils


def new_id() -> str:
    return str(uuid_utils.uuid7())


def is_id(text: str) -> bool:
    """Whether the text is a UUID in its canonical form."""
    try:
        return str(uuid_utils.UUID(text)) == text
    except ValueError:
        return False
