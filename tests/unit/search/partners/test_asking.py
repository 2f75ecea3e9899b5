"""What the search at home makes of its partners: named parts of one answer, never a failure, and never unrecorded."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import orjson
import pytest
from PIL import Image

from services.rpc.auditing import AuditRecorder
from services.rpc.v1 import audit_pb2, picture_pb2
from services.search.identification.standing import StandingPermission
from services.search.partners.answers import PartnerStatus, answer_of, read_answer
from services.search.partners.asking import SearchConsortium, key_at_home
from services.search.partners.config import Partner, PartnerFile, Partners
from services.search.partners.picture import picture_for
from services.search.partners.ports import Reply
from services.search.partners.sql_store import SqlPartnerStore
from services.search.partners.tokens import Question
from services.search.partners.trail import PartnerTrail
from services.search.partners.viewing import ViewConsortium
from services.search.policy import PolicyFolder, Rulebook
from services.shared.errors import CallerError, Conflict, Forbidden, InvalidRequest, NotFound
from services.shared.ids import new_id
from services.shared.multipart import Upload
from services.shared.tokens import Principal
from services.shared.watchlists import WatchlistFile
from tests.support.partners import Side, introduce
from tests.unit.search.fakes import OPERATOR, ManualClock, MemoryAudit, open_store
from tests.unit.search.partners.conftest import PICTURE, home_document

FIELDS = {"watchlists": ("op_liberal",), "partners": ("eastmoor",), "authority": ("OPL s.4, DI 1234",)}


@dataclass
class HomeSearch:
    """`Identify`: the same key gives the same answer."""

    document: dict[str, Any]
    error: CallerError | None = None
    ended: CallerError | None = None
    texts: list[Mapping[str, Any]] = field(default_factory=list)

    def __call__(self, principal: Principal, upload: Upload, idempotency_key: str | None = None) -> bytes:
        self.texts.append(upload.texts)
        if self.error is not None:
            raise self.error
        return orjson.dumps(self.document)

    def reject(self, principal: Principal, error: CallerError) -> NoReturn:
        raise error

    def require_still(self, principal: Principal, document: Mapping[str, Any]) -> None:
        """Withdrawn while the partner had its time."""
        if self.ended is not None:
            raise self.ended


@dataclass
class Link:
    """Answers for the partner; `reply` instead where it is set."""

    document: dict[str, Any]
    audit: MemoryAudit
    reply: Reply | None = None
    down_after: bool = False
    asked: list[tuple[Question, bytes]] = field(default_factory=list)

    def ask(self, partners: Partners, partner: Partner, question: Question, picture: bytes) -> Reply:
        assert self.audit.entries, "the picture leaves before its intent is recorded"
        self.asked.append((question, picture))
        self.audit.is_down = self.down_after
        if self.reply is not None:
            return self.reply
        return Reply(PartnerStatus.ANSWERED, read_answer(answer_of(question, self.document), question), "f" * 64)


class NoRenderer:
    def render(self, image: bytes, *, max_side: int, as_jpeg: bool = False) -> picture_pb2.RenderedPicture:
        raise NotImplementedError


@dataclass
class Consortium:
    search: SearchConsortium
    view: ViewConsortium
    home: HomeSearch
    link: Link
    audit: MemoryAudit

    def ask(self, key: str | None = None, who: Principal = OPERATOR, **fields: Any) -> dict[str, Any]:
        answer: dict[str, Any] = orjson.loads(
            self.search(who, Upload({**FIELDS, **fields}, {"image": (PICTURE,)}), key)
        )
        return answer

    def outcomes(self) -> list[tuple[str, str]]:
        entries = [one for one in self.audit.entries.values() if one.activity == "partner_search"]
        return [(audit_pb2.Phase.Name(one.phase), one.details.get("reason", "")) for one in entries]


def _home(**changes: Any) -> dict[str, Any]:
    request = {
        "case_reference": "C-1",
        "purpose": "prevention_and_detection",
        "offence": "burglary",
        "source": "cctv",
        "case_type": "unstated",
        "watchlists": ["op_liberal"],
        "mode": "investigation",
        "max_candidates": 5,
    }
    probe = {"sha256": "c" * 64, "width": 100, "height": 80}
    return home_document(**{"request": request, "probe": probe, "faces": [{}], "face": 0, **changes})


@pytest.fixture
def consortium(north: Side, east: Side, tmp_path: Path) -> Iterator[Consortium]:
    introduce(north, east)
    _, engine = open_store(tmp_path)
    clock, audit, store, executor = ManualClock(), MemoryAudit(), SqlPartnerStore(engine), ThreadPoolExecutor(2)
    trail = PartnerTrail(AuditRecorder(audit, "search", clock), store, clock)
    home, link = HomeSearch(_home()), Link(home_document(), audit)
    search = SearchConsortium(
        file=PartnerFile(north.file),
        identify=home,
        link=link,
        store=store,
        trail=trail,
        renderer=NoRenderer(),
        clock=clock,
        executor=executor,
    )
    standing = StandingPermission(Rulebook(PolicyFolder(), WatchlistFile()), clock)
    yield Consortium(search, ViewConsortium(store, trail, standing), home, link, audit)
    executor.shutdown()
    engine.dispose()


def test_an_answer_attributed_and_found_again(consortium: Consortium) -> None:
    answer = consortium.ask("key")
    assert (answer["status"], answer["missing"]) == ("complete", [])
    assert [group["sources"] for group in answer["lists"]] == [["northshire", "eastmoor"]]
    [(question, picture)] = consortium.link.asked
    assert (question.person, question.force, question.authority) == ("op-7", "northshire", "OPL s.4, DI 1234")
    assert picture == PICTURE
    assert "partners" not in consortium.home.texts[0]  # the search at home is a search like any other
    assert consortium.outcomes() == [("INTENT", ""), ("DONE", "")]
    assert consortium.ask("key") == answer
    assert len(consortium.link.asked) == 1
    assert orjson.loads(consortium.view(OPERATOR, answer["consortium_id"])) == answer
    with pytest.raises(Conflict):
        consortium.ask("key", authority=("somebody else",))
    stranger = Principal("op-9", "westhaven", OPERATOR.roles, OPERATOR.watchlists)
    narrow = Principal("op-8", "northshire", OPERATOR.roles, frozenset({"custody"}))
    for who, wanted in ((stranger, answer["consortium_id"]), (narrow, answer["consortium_id"]), (OPERATOR, new_id())):
        with pytest.raises(NotFound):
            consortium.view(who, wanted)


def test_a_flagged_probe_leaves_for_nobody(consortium: Consortium) -> None:
    probe = consortium.home.document["probe"]
    consortium.home.document["probe"] = {**probe, "needs_supervisor": True}
    answer = consortium.ask()
    assert consortium.link.asked == []
    assert consortium.outcomes() == []
    [told] = answer["partners"]
    assert (told["status"], told["problem"]["code"]) == ("not_sent", "probe_flagged")
    assert answer["missing"] == ["eastmoor"]


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        (PartnerStatus.REFUSED, "REFUSED"),
        (PartnerStatus.TIMED_OUT, "UNKNOWN"),
        (PartnerStatus.NONSENSE, "UNKNOWN"),
        (PartnerStatus.UNREACHABLE, "FAILED"),
        (PartnerStatus.FAILED, "FAILED"),
    ],
)
def test_whatever_a_partner_does_is_named_and_recorded(
    consortium: Consortium, status: PartnerStatus, phase: str
) -> None:
    consortium.link.reply = Reply(status, code="some_code", detail="Some words.")
    answer = consortium.ask()
    assert (answer["status"], answer["missing"]) == ("partial", ["eastmoor"])
    assert answer["partners"][0]["problem"] == {"code": "some_code", "detail": "Some words.", "advice": ""}
    assert answer["home"]["candidates"][0]["subject_id"] == "EM-1"
    assert [group["sources"] for group in answer["lists"]] == [["northshire"]]
    assert any("means nothing" in line for line in answer["statements"])
    assert consortium.outcomes() == [("INTENT", ""), (phase, "some_code")]


def test_nothing_leaves_unrecorded_and_nothing_is_given_unrecorded(consortium: Consortium) -> None:
    consortium.audit.is_down = True
    assert consortium.ask()["partners"][0]["status"] == "not_sent"
    assert consortium.link.asked == []
    consortium.audit.is_down = False
    consortium.link.down_after = True
    answer = consortium.ask()
    assert answer["partners"][0]["status"] == "withheld"
    assert answer["partners"][0]["answer"] is None
    assert [group["sources"] for group in answer["lists"]] == [["northshire"]]


def test_what_is_refused_at_home_goes_nowhere(consortium: Consortium) -> None:
    for fields in ({"partners": ("https://10.0.0.1",)}, {"partners": ()}, {"authority": ()}, {"authority": ("a", "b")}):
        with pytest.raises(InvalidRequest):
            consortium.ask(**fields)
    with pytest.raises(Forbidden):
        consortium.ask(who=Principal("c-1", "northshire", frozenset({"custodian"}), OPERATOR.watchlists))
    assert consortium.home.texts == []
    consortium.home.error = Forbidden("no")
    with pytest.raises(Forbidden):
        consortium.ask()
    consortium.home.error = None
    consortium.home.document = _home(request={**_home()["request"], "watchlists": ["custody"]})
    assert consortium.ask()["partners"][0]["status"] == "not_asked"
    assert consortium.link.asked == []


def test_the_list_at_home_is_not_given_when_its_permission_ends_while_partners_have_their_time(
    consortium: Consortium,
) -> None:
    consortium.home.ended = Forbidden("Ended.", advice="Search again.")
    with pytest.raises(Forbidden):
        consortium.ask("key")
    assert len(consortium.link.asked) == 1


def test_cut_off_in_between_the_same_question_goes_again(consortium: Consortium) -> None:
    consortium.link.reply = Reply(PartnerStatus.TIMED_OUT, code="late", detail="Late.")
    store = consortium.search._store
    finish = store.finish
    store.finish = _stop  # type: ignore[method-assign,assignment]
    with pytest.raises(InterruptedError):
        consortium.ask("key")
    store.finish = finish  # type: ignore[method-assign]
    consortium.link.reply = None
    assert consortium.ask("key")["status"] == "complete"
    first, second = (question for question, _ in consortium.link.asked)
    assert first == second


def _stop(*_: object) -> None:
    raise InterruptedError


def test_of_several_faces_the_searched_one_alone_leaves() -> None:
    pixels = np.zeros((80, 200, 3), np.uint8)
    pixels[10:50, 10:40] = 200  # the face that is searched
    pixels[10:50, 45:75] = 90  # somebody else beside it
    pixels[10:50, 150:180] = 60  # and somebody far away
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    boxes = [{"x": x, "y": 10.0, "width": 30.0, "height": 40.0} for x in (45.0, 10.0, 150.0)]
    answer = {"faces": [{"box": box} for box in boxes], "face": 1, "probe": {"width": 200, "height": 80}}

    class Renderer:
        def render(self, image: bytes, *, max_side: int, as_jpeg: bool = False) -> picture_pb2.RenderedPicture:
            return picture_pb2.RenderedPicture(content=image, width=200, height=80, scale=1.0)

    sent = picture_for(file.getvalue(), answer, Renderer())
    assert sent.form == "cropped"
    with Image.open(io.BytesIO(sent.content)) as image:
        shown = np.asarray(image)
    values = set(np.unique(shown).tolist())
    assert 200 in values
    assert not values & {90, 60}
    assert shown.shape[1] < 80
    assert picture_for(b"as it came", {"faces": [{}]}, Renderer()).content == b"as it came"


def test_long_keys_that_begin_alike_are_two_keys_at_home() -> None:
    one, other = (key_at_home("k" * 199 + end) for end in "ab")
    assert one != other
    assert max(len(one), len(other)) <= 200
    assert key_at_home("k") == "consortium:k"
