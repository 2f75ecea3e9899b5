"""Channels of tests to services that are started again."""

from __future__ import annotations

import grpc

from services.rpc.clients import open_channel
from services.shared.settings import TlsSettings

READY_S = 180.0


def ready_channel(address: str, tls: TlsSettings | None = None, peer: str = "") -> grpc.Channel:
    """A channel that is connected.

    Channels of one process to one address share their connection and its back-off: where a service was killed and
    started again on its port, the first call of a new channel would otherwise fail, as "try again in a few seconds"
    allows.
    """
    channel = open_channel(address, tls, peer)
    grpc.channel_ready_future(channel).result(READY_S)
    return channel
