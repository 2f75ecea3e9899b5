"""Consumer groups as their broker sees them."""

from __future__ import annotations

from kafka import KafkaAdminClient

from tests.support.waiting import wait_until


def members(address: str, group: str) -> int:
    """How many members a group has now."""
    admin = KafkaAdminClient(bootstrap_servers=address)
    try:
        described = admin.describe_groups([group])
    finally:
        admin.close()
    found = described[group] if isinstance(described, dict) else described[0]
    return len(found["members"] if isinstance(found, dict) else found.members)


def forget_offsets(address: str, group: str, within_s: float) -> None:
    """The broker loses how far a group has read. A member that has just left counts for as long as its session."""
    admin = KafkaAdminClient(bootstrap_servers=address)
    try:
        wait_until(lambda: admin.delete_groups([group]).get(group) == "OK", within_s, "the group to be deleted", 0.5)
    finally:
        admin.close()
