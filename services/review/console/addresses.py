"""From which address a browser comes, where a gateway stands before the console."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from fastapi import Request

_MAX_HEADER = 2048


class Addresses:
    """The address that a connection has; where that is a trusted gateway's, the one that the gateways wrote down.

    `X-Forwarded-For` is read from its end: each gateway adds whom it was asked by, and what stands before the first
    that is none of ours may have been written by anybody.
    """

    def __init__(self, trusted: Sequence[IPv4Network | IPv6Network]) -> None:
        self._trusted = tuple(trusted)

    def of(self, request: Request) -> str:
        peer = request.client.host if request.client else ""
        if not self._is_trusted(peer):
            return peer
        told = ",".join(request.headers.getlist("x-forwarded-for"))
        steps = [step.strip() for step in told.split(",")] if len(told) <= _MAX_HEADER else []
        for step in reversed(steps):
            if _parsed(step) is None:
                break
            peer = step
            if not self._is_trusted(step):
                break
        return peer

    def _is_trusted(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._trusted)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
