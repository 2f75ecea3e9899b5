"""What an owner changes and what it sends keep apart, and what was moved under way is settled as it stands then."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from services.ingest.adapters.group_commit import GroupCommitter
from services.ingest.adapters.owner_turns import owner_turns
from services.ingest.adapters.sql_custody import SqlCustody
from services.ingest.life.custody import OwnerTurns, SubjectLink
from tests.contract.test_enrolment_ledger import LATER, NOW, Ledgers, claim, enrol, new, open_ledgers, settle

_SOON_S = 0.2
_BOUND_S = 120.0


@dataclass
class Both:
    """The turns as two processes of one store have them: one and the same where a store has one process."""

    one: OwnerTurns
    other: OwnerTurns


@pytest.fixture
def ledgers(tmp_path: Path) -> Iterator[Ledgers]:
    yield from open_ledgers(f"sqlite:///{tmp_path / 'ingest.sqlite'}")


@pytest.fixture
def turns(ledgers: Ledgers) -> Both:
    one = owner_turns(ledgers.engine)
    is_shared_store = ledgers.engine.dialect.name == "postgresql"
    return Both(one, owner_turns(ledgers.engine) if is_shared_store else one)


class TestOwnerTurns:
    def test_images_go_together(self, turns: Both) -> None:
        with turns.one.shared("northshire"), turns.other.shared("northshire"), turns.one.shared("northshire"):
            pass

    def test_a_change_waits_for_images_under_way(self, turns: Both) -> None:
        done, begun = Event(), Event()

        def change() -> None:
            begun.set()
            with turns.other.alone("northshire"):
                assert done.is_set()

        with ThreadPoolExecutor(1) as pool:
            with turns.one.shared("northshire"):
                changed = pool.submit(change)
                assert begun.wait(_BOUND_S)
                assert not wait([changed], _SOON_S).done
                done.set()
            changed.result(_BOUND_S)

    def test_images_wait_for_a_change_under_way(self, turns: Both) -> None:
        done = Event()

        def take() -> None:
            with turns.other.shared("northshire"):
                assert done.is_set()

        with ThreadPoolExecutor(1) as pool:
            with turns.one.alone("northshire"):
                taken = pool.submit(take)
                assert not wait([taken], _SOON_S).done
                done.set()
            taken.result(_BOUND_S)

    def test_other_owners_do_not_wait(self, turns: Both) -> None:
        with turns.one.alone("northshire"), turns.other.alone("eastmoor"), turns.other.shared("westvale"):
            pass

    def test_an_error_ends_the_turn(self, turns: Both) -> None:
        with pytest.raises(ZeroDivisionError), turns.one.alone("northshire"):
            raise ZeroDivisionError
        with turns.other.alone("northshire"):
            pass

    def test_many_of_both_kinds_all_get_their_turn(self, turns: Both) -> None:
        inside: list[str] = []

        def go(number: int) -> None:
            side = (turns.one, turns.other)[number % 2]
            if number % 5:
                with side.shared("northshire"):
                    assert "alone" not in inside
                return
            with side.alone("northshire"):
                assert not inside
                inside.append("alone")
                inside.pop()

        with ThreadPoolExecutor(8) as pool:
            assert len(list(pool.map(go, range(200), timeout=_BOUND_S))) == 200


class TestMovedUnderWay:
    def test_what_was_merged_after_it_was_claimed_is_settled_under_its_new_subject(self, ledgers: Ledgers) -> None:
        committer = GroupCommitter(ledgers.engine)
        custody = SqlCustody(ledgers.engine, committer)
        item = new("sha", subject="S1")
        ledgers.ledger.accept([item])
        [claimed] = claim(ledgers.ledger)
        [decided] = ledgers.ledger.decide([(claimed, enrol())])
        assert custody.link(SubjectLink("northshire", "S1", "", "S2", NOW), NOW) == 1

        ledgers.ledger.settle([(decided, [])], LATER)  # too late: the gallery was told of S1
        view = ledgers.ledger.view(item.enrolment_id)
        assert view is not None
        assert (view.subject_id, view.state.value) == ("S2", "accepted")

        [again] = claim(ledgers.ledger)
        assert (again.key.subject_id, again.decision is not None) == ("S2", True)
        assert again.version > claimed.version
        assert ledgers.ledger.decide([(claimed, enrol())]) == []
        settle(ledgers, again, enrol())
        view = ledgers.ledger.view(item.enrolment_id)
        assert view is not None
        assert (view.subject_id, view.state.value) == ("S2", "enrolled")
        committer.close()
