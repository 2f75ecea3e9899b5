"""Acts of ingest that were cut short after their intent get their one outcome, and the right one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
import sqlalchemy as sa

from services.ingest.access.give import ACCESS
from services.ingest.acts import open_ingest_acts, sweeping
from services.ingest.bootstrap import MIGRATIONS
from services.ingest.exports.exporting import EXPORT
from services.ingest.flags.model import Flag, FlagKind, FlagState, FlagStore
from services.ingest.flags.trail import DECISION
from services.ingest.life.sweeping import SWEEP
from services.ingest.migrating.governance import ACTIVITY as MIGRATION
from services.rpc.auditing import AuditRecorder
from services.rpc.open_acts import OpenAct, OpenActs, Settled
from services.rpc.v1 import audit_pb2
from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.database import create_engine, migrate
from services.shared.errors import AuditUnavailable, Conflict
from services.shared.ids import new_id
from services.shared.settings import DatabaseSettings
from services.shared.tokens import Principal
from tests.unit.search.test_open_acts import Clock, Log

WHO = Principal("cust-1", "northshire", frozenset({"custodian"}), frozenset())


class Flags:
    """One flag."""

    def __init__(self, flag: Flag) -> None:
        self.flag = flag

    def find(self, flag_id: str) -> Flag | None:
        return self.flag if flag_id == self.flag.flag_id else None


class Scene:
    def __init__(self, folder: Path) -> None:
        self.engine: sa.Engine = create_engine(DatabaseSettings(url=f"sqlite:///{folder / 'ingest.sqlite'}"))
        migrate(self.engine, MIGRATIONS)
        self.log, self.clock = Log(), Clock()
        self.images = FolderImageStore(folder / "images")
        self.flags = Flags(
            Flag(new_id(), FlagKind.SAME_PERSON, "northshire", "custody", "A", "B", "k", "probable", "1", "m1", 0, ())
        )

    def process(self) -> OpenActs:
        """Ingest, started anew."""
        return open_ingest_acts(self.engine, AuditRecorder(self.log, "ingest", self.clock), self.clock)

    def sweep(self, acts: OpenActs, after_s: float = 60.0) -> None:
        self.clock.at += timedelta(seconds=after_s)
        sweeping(acts, cast(FlagStore, self.flags), self.images, self.migrated)._step()

    def migrated(self, act: OpenAct) -> Settled:
        """As if every step of a migration had been done."""
        return Settled(True)

    def act(self, activity: str) -> OpenAct:
        told = {"decision": "dismissed", "reason": "twins"}
        return OpenAct(activity, audit_pb2.ALTERATION, WHO, [f"flag:{self.flags.flag.flag_id}"], told)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.engine.dispose()


@pytest.mark.parametrize(
    ("activity", "decided_by", "phase"),
    [
        (DECISION, "cust-1", "DONE"),
        (DECISION, "cust-2", "FAILED"),
        (DECISION, "", "FAILED"),
        (ACCESS, "", "FAILED"),
        (EXPORT, "", "FAILED"),
        ("of_an_older_version", "", "UNKNOWN"),
    ],
)
def test_what_a_killed_process_left_open_is_closed_as_what_became_of_it(
    scene: Scene, activity: str, decided_by: str, phase: str
) -> None:
    if decided_by:
        decided = replace(scene.flags.flag, state=FlagState.DISMISSED, decided_by=decided_by, reason="twins")
        scene.flags.flag = decided
    scene.process().begin(scene.act(activity))
    restarted = scene.process()
    scene.sweep(restarted, 1.0)
    assert scene.log.phases() == ["INTENT"], "it may still be under way in another process"
    for _ in range(2):
        scene.sweep(restarted)
        assert scene.log.phases() == ["INTENT", phase]


def test_a_step_of_a_migration_is_settled_by_its_ledger_and_a_sweep_by_what_is_left(scene: Scene) -> None:
    kept, gone = scene.images.put(b"kept"), "0" * 64
    acts = scene.process()
    acts.begin(scene.act(MIGRATION))
    for named in ([gone], [gone, kept]):
        scene.clock.at += timedelta(seconds=1)
        acts.begin(replace(scene.act(SWEEP), objects=[f"image:{sha256}" for sha256 in named]))
    scene.sweep(scene.process())
    assert scene.log.phases() == [*["INTENT"] * 3, "DONE", "DONE", "FAILED"]
    whole, part = list(scene.log.entries.values())[-2:]
    assert (whole.details["gone"], whole.details["left"]) == ("1", "0")
    assert (part.details["gone"], part.details["left"]) == ("1", "1")


def test_what_is_under_way_is_left_alone_however_long_it_takes(scene: Scene) -> None:
    acts, other = scene.process(), scene.process()
    act = scene.act(ACCESS)
    with acts.under_way(act):
        for _ in range(3):
            scene.sweep(acts)
            scene.sweep(other, 5.0)
        assert scene.log.phases() == ["INTENT"]
        acts.end(act, audit_pb2.DONE, {})
    scene.sweep(acts)
    assert scene.log.phases() == ["INTENT", "DONE"]


def test_an_error_is_the_outcome_and_a_log_that_is_away_leaves_it_to_the_sweep(scene: Scene) -> None:
    acts = scene.process()
    with pytest.raises(Conflict), acts.under_way(scene.act(DECISION)):
        raise Conflict("decided", code="flag_decided")
    assert scene.log.phases() == ["INTENT", "REFUSED"]
    with pytest.raises(AuditUnavailable), acts.under_way(scene.act(EXPORT)):
        scene.log.is_down = True
        raise Conflict("something else")
    scene.log.is_down = False
    scene.sweep(acts)
    assert scene.log.phases() == ["INTENT", "REFUSED", "INTENT", "FAILED"]


def test_times_are_kept_with_their_zone(scene: Scene) -> None:
    acts = scene.process()
    scene.clock.at = datetime(2026, 6, 1, tzinfo=UTC)
    acts.begin(scene.act(EXPORT))
    scene.sweep(acts)
    assert scene.log.phases() == ["INTENT", "FAILED"]
