"""A request with a film: sealed, read by search, people picked from it as probes with their frames named."""

from __future__ import annotations

import io
from datetime import date
from typing import NoReturn

import pytest

from services.review.casework import intake
from services.review.model import Case, CaseState, Suitability
from services.review.uploads import FilmUpload
from services.shared.errors import Conflict, DependencyUnavailable, Forbidden, IntegrityError, InvalidRequest, NotFound
from tests.unit.review.people import ANNA, BERT, FORM, OFFICER, SUE, Unit, png

FILM = b"frames and frames" * 100


def sent(unit: Unit, *pictures: bytes) -> Case:
    return unit.desk.intake.submit(OFFICER, FORM, list(pictures), film=FilmUpload.of(io.BytesIO(FILM)))


@pytest.fixture
def accepted(unit: Unit) -> Case:
    case = sent(unit)
    return unit.desk.triage.accept(ANNA, case.request_id, case.version, "Lawful and needed.")


def read(unit: Unit, case: Case) -> Case:
    return unit.desk.films.read(ANNA, case.request_id, unit.version(case), case.films[0].film_id)


def pick(unit: Unit, case: Case, *tracks: int) -> Case:
    return unit.desk.films.pick(ANNA, case.request_id, unit.version(case), case.films[0].film_id, tracks)


def test_a_film_is_sealed_in_pieces_and_handed_in_as_it_came(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "FILM_PIECE_BYTES", 400)
    case = sent(unit)
    [film] = case.films
    assert (case.probes, len(film.pieces), film.size_bytes) == ((), 5, len(FILM))
    assert set(film.pieces) <= case.pictures(), "they are erased with the case"
    case = unit.desk.triage.accept(ANNA, case.request_id, case.version, "Lawful and needed.")
    assert unit.films.handed_in == [], "nobody looks into it before triage"
    read(unit, case)
    [(token, form, content)] = unit.films.handed_in
    assert (token, content) == (ANNA.bearer, FILM)
    assert (form["purpose"], form["watchlists"]) == ("prevention_and_detection", ["custody"])
    with pytest.raises(Conflict) as refused:
        read(unit, case)
    assert refused.value.code == "film_is_read"
    unit.films.status = "refused"
    read(unit, case)
    assert len(unit.films.handed_in) == 2, "what could not be read may be handed in again"
    assert len(set(unit.films.keys)) == 2


def test_handed_in_again_after_a_stop_it_is_the_same_reading(
    unit: Unit, accepted: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> NoReturn:
        raise DependencyUnavailable("stopped")

    with monkeypatch.context() as stopping, pytest.raises(DependencyUnavailable):
        stopping.setattr(unit.store, "save", stop)
        read(unit, accepted)
    read(unit, accepted)
    assert len(unit.films.handed_in) == 2
    assert len(set(unit.films.keys)) == 1


def test_a_picked_track_is_a_probe_whose_frame_is_named_on_the_result(unit: Unit, accepted: Case) -> None:
    case = read(unit, accepted)
    assert unit.desk.films.see(ANNA, case.request_id, case.films[0].film_id, with_chips=True).tracks[1].frames_seen == 6
    case = pick(unit, case, 1)
    [probe] = case.probes
    assert probe.frame is not None
    assert (probe.frame.track, probe.frame.frame_number, probe.frame.time_s) == (1, 40, 1.6)
    assert probe.original.sha256 == list(unit.films.frames)[1]
    case = unit.desk.probes.assess(
        ANNA, case.request_id, case.version, probe_id=probe.probe_id, face=0, grade=Suitability.SUITABLE, remarks="Ok."
    )
    case = unit.desk.searching(
        ANNA, case.request_id, case.version, probe_id=probe.probe_id, enhancement_id=None, reason="First search."
    )
    unit.signed(ANNA, case)
    case = unit.signed(BERT, case)
    released = unit.desk.deciding.release(BERT, case.request_id, case.version, date(2026, 12, 1))
    assert released.release is not None
    said = f"Frame 40 (timestamp 20480, 1.60 s) of the film with SHA-256 {case.films[0].sha256}."
    assert said in released.release.statements


def test_only_tracks_that_are_there_are_picked_and_each_once(unit: Unit, accepted: Case) -> None:
    with pytest.raises(Conflict) as early:
        pick(unit, accepted, 0)
    assert early.value.code == "film_not_done"
    case = read(unit, accepted)
    for tracks in ((), (7,)):
        with pytest.raises(InvalidRequest):
            pick(unit, case, *tracks)
    case = pick(unit, case, 0, 0)
    assert len(case.probes) == 1
    with pytest.raises(Conflict) as again:
        pick(unit, case, 0)
    assert again.value.code == "already_picked"


def test_a_frame_that_is_not_what_the_record_says_is_no_probe(unit: Unit, accepted: Case) -> None:
    case = read(unit, accepted)
    unit.films.frames = dict.fromkeys(unit.films.frames, png(seed=99))
    with pytest.raises(IntegrityError):
        pick(unit, case, 0)
    assert unit.version(case) == case.version


def test_a_film_is_seen_by_operators_of_the_case_alone(unit: Unit, accepted: Case) -> None:
    film_id = accepted.films[0].film_id
    for who in (OFFICER, SUE):
        with pytest.raises(Forbidden):
            unit.desk.films.see(who, accepted.request_id, film_id, with_chips=False)
    with pytest.raises(NotFound):
        unit.desk.films.see(ANNA, accepted.request_id, "another", with_chips=False)
    unit.desk.films.see(ANNA, accepted.request_id, film_id, with_chips=False)
    assert unit.audit.of("see_film")[-1] == "DONE"


def test_a_case_with_a_film_is_not_ended_by_a_picture_that_is_unsuitable(unit: Unit) -> None:
    case = sent(unit, png())
    case = unit.desk.triage.accept(ANNA, case.request_id, case.version, "Lawful and needed.")
    case = unit.desk.probes.assess(
        ANNA,
        case.request_id,
        case.version,
        probe_id=case.probes[0].probe_id,
        face=0,
        grade=Suitability.UNSUITABLE,
        remarks="Blurred.",
    )
    assert case.state is CaseState.ASSESSED
    ended = unit.desk.probes.call_unsuitable(ANNA, case.request_id, case.version, "Nobody can be seen in the film.")
    assert ended.state is CaseState.UNSUITABLE
