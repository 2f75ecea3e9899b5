"""Witnesses beside the folder: a topic; each with a thread of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.audit.adapters.topic_witness import TOPIC, TopicWitness
from services.audit.ports import PublishedKey
from services.audit.verification import Checkpoint
from services.audit.verifying import verify
from services.audit.witnessing import Witnessing
from services.shared.adapters.sqlite_event_log import SqliteEventLog
from services.shared.errors import DependencyUnavailable, IntegrityError, LikenessError
from services.shared.ports.event_log import Event
from tests.support.waiting import wait_until
from tests.unit.audit.builders import local_log


def test_a_topic_holds_every_checkpoint_and_key(tmp_path: Path) -> None:
    events = SqliteEventLog(tmp_path / "events.sqlite")
    witness = TopicWitness(events)
    assert witness.newest() is None
    with local_log(tmp_path, entries=4) as opened:
        copying = Witnessing(opened.store, witness, None, opened.log.listen(), _fail)
        copying.start()
        opened.fill(13)
        newest = opened.log.checkpoint(fresh=True)
        wait_until(lambda: witness.newest() == newest, 60, "the topic to hold the newest checkpoint", 0.2)
        copying.stop()
        [key] = opened.store.published_keys()
    subscription = events.subscribe([TOPIC], "an auditor")
    received = subscription.poll(100, 0.5)
    assert received[0].value.decode() == key.public_key
    assert verify(tmp_path / "audit.sqlite", checkpoints=[newest]).witnessed == 1


def test_what_others_write_to_the_topic_is_found(tmp_path: Path) -> None:
    events = SqliteEventLog(tmp_path / "events.sqlite")
    events.publish([Event(TOPIC, "x", b"{}", {"kind": "checkpoint"})])
    with pytest.raises(IntegrityError, match="something else"):
        TopicWitness(events).newest()


class _Away:
    """A witness that cannot be reached."""

    def newest(self) -> Checkpoint | None:
        raise DependencyUnavailable("it is away")

    def publish_key(self, key: PublishedKey) -> None:
        raise DependencyUnavailable("it is away")

    def keep(self, checkpoint: Checkpoint) -> None:
        raise DependencyUnavailable("it is away")


def test_a_witness_that_is_away_holds_no_other_up(tmp_path: Path) -> None:
    witness = TopicWitness(SqliteEventLog(tmp_path / "events.sqlite"))
    with local_log(tmp_path, entries=4) as opened:
        copying = [Witnessing(opened.store, each, None, opened.log.listen(), _fail) for each in (_Away(), witness)]
        for each in copying:
            each.start()
        opened.fill(5)
        newest = opened.log.checkpoint(fresh=True)
        wait_until(lambda: witness.newest() == newest, 60, "the topic to hold the newest checkpoint", 0.2)
        for each in copying:
            each.stop()


def _fail(error: LikenessError) -> None:
    raise AssertionError(error.detail)
