"""What one platform asks of another, as one signed statement for that one and no other.

A question is a JWT (EdDSA) of a minute's life: `iss` the asking platform, `aud` the one asked, and everything that the
search needs, with the SHA-256 of the picture that follows as the body. So nobody can put another picture, purpose or
person under it; `jti` is used once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

import jwt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from services.search.identification.requests import MAX_CANDIDATES, MAX_TEXT_CHARS, MIN_CANDIDATES, ImageNature
from services.search.partners.config import Partner, Partners
from services.shared.clock import Clock
from services.shared.errors import Unauthenticated
from services.shared.ids import is_id, new_id
from services.shared.tokens import MAX_TOKEN_CHARS, Principal
from services.shared.watchlists import CaseType, Identifier

LIFETIME = timedelta(seconds=60)
LEEWAY_S = 30  # between two forces' clocks
TOKEN_TYPE = "likeness-partner+jwt"  # noqa: S105 - a type, no secret

Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARS)]
Claim = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Question(BaseModel):
    """What is asked: who asks, why, by which authority, for which picture, in which watchlists.

    `exchange_id` (a UUID) is the same whenever the same question is sent again, and is answered once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    exchange_id: Claim
    home_search_id: Claim
    person: Claim
    force: Claim
    roles: tuple[Claim, ...] = Field(max_length=16)
    trained_until: date | None
    case_reference: Text
    purpose: Text
    offence: Text
    authority: Text
    source: Text
    case_type: CaseType
    nature: ImageNature = ImageNature.UNSTATED
    watchlists: tuple[Identifier, ...] = Field(min_length=1, max_length=32)
    mode: Literal["investigation", "identification"]
    max_candidates: int = Field(ge=MIN_CANDIDATES, le=MAX_CANDIDATES)
    picture_sha256: Sha256


@dataclass(frozen=True, slots=True)
class Asked:
    """A verified question, and the token that it came in: used up until it has expired anyway."""

    question: Question
    token_id: str
    expires_at: datetime


def sign(partners: Partners, partner: Partner, question: Question, clock: Clock) -> str:
    """The token that goes with the picture."""
    now = clock.now()
    claims: dict[str, Any] = {
        "iss": partners.own.name,
        "aud": partner.name,
        "iat": now,
        "nbf": now,
        "exp": now + LIFETIME,
        "jti": new_id(),
        # A partner of an earlier version knows no nature, and is asked as before where none was stated.
        "ask": question.model_dump(
            mode="json", exclude={"nature"} if question.nature is ImageNature.UNSTATED else None
        ),
    }
    return jwt.encode(claims, partners.signing_key, algorithm="EdDSA", headers={"typ": TOKEN_TYPE})


def verify(partners: Partners, partner: Partner, token: str) -> Asked:
    """The question of a partner, known by its certificate. Raises Unauthenticated, with the same words always:

    1. it is of a sane length, of our type and signed with the partner's key;
    2. it is from that partner, for us, and of this minute;
    3. it is a whole question, printable, and for a force that the partner speaks for.
    """
    try:
        if len(token) > MAX_TOKEN_CHARS:
            raise ValueError("length")  # noqa: TRY301 - all failures leave through one door
        header = jwt.get_unverified_header(token)
        if header.get("typ") != TOKEN_TYPE or "crit" in header or "b64" in header:
            raise ValueError("header")  # noqa: TRY301
        claims = jwt.decode(
            token,
            key=partners.token_key(partner),
            algorithms=["EdDSA"],
            issuer=partner.name,
            audience=partners.own.name,
            leeway=LEEWAY_S,
            options={"require": ["exp", "nbf", "iat", "iss", "aud", "jti", "ask"]},
        )
        if claims["exp"] - claims["iat"] > LIFETIME.total_seconds():
            raise ValueError("lifetime")  # noqa: TRY301
        question = Question.model_validate(claims["ask"])
        token_id = str(claims["jti"])
        _check(question, partner, token_id)
    except (jwt.PyJWTError, ValidationError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Unauthenticated(
            "The question is not signed as a partner's question to this platform is.",
            advice="Compare names, keys and clocks of both platforms; docs/operations/partners.md.",
        ) from error
    return Asked(question, token_id, datetime.fromtimestamp(claims["exp"] + LEEWAY_S, UTC))


def principal_of(question: Question, partner: Partner) -> Principal:
    """Who asks, as our policy sees them: with the roles that their platform vouches for, and of our watchlists no more
    than this partner may ask. The name is the partner's, so that it is nobody's of ours."""
    return Principal(
        person_id=f"{partner.name}/{question.person}",
        force=question.force,
        roles=frozenset(question.roles) & {"operator"},
        watchlists=frozenset(partner.answer_watchlists),
        trained_until=question.trained_until,
    )


def _check(question: Question, partner: Partner, token_id: str) -> None:
    texts = [value for value in question.model_dump(mode="json").values() if isinstance(value, str)]
    if not all(text.isprintable() for text in (*texts, *question.roles)):
        raise ValueError("unprintable")
    if not all(is_id(text) for text in (token_id, question.exchange_id, question.home_search_id)):
        raise ValueError("ids")
    if question.force not in partner.forces:
        raise ValueError("force")
