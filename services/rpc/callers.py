"""A person's own token beside a call between services, so that no service acts with rights of its own."""

from __future__ import annotations

from typing import cast

import grpc

from services.shared.tokens import Principal, TokenVerifier

_HEADER = "authorization"
_SCHEME = "Bearer "


def on_behalf_of(bearer: str) -> tuple[tuple[str, str], ...]:
    """The metadata that carries a person's token with a call."""
    return ((_HEADER, _SCHEME + bearer),)


def principal_of(context: grpc.ServicerContext, verifier: TokenVerifier) -> Principal:
    """The person on whose behalf a call is made. Raises Unauthenticated."""
    # The stubs type one pair where the library gives a tuple of pairs.
    metadata = dict(cast("tuple[tuple[str, str], ...]", context.invocation_metadata() or ()))
    given = metadata.get(_HEADER, "")
    return verifier.verify(given.removeprefix(_SCHEME) if given.startswith(_SCHEME) else "")
