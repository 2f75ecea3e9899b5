"""A channel that is replaced when its certificates are, under the stubs that use it."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

import grpc

_LOOK_EVERY_S = 1.0
# Longer than the longest deadline of a call, so that no call is cut off by a renewal.
_RETIRE_AFTER_S = 900.0


class RenewingChannel(grpc.Channel):
    """Looks every second whether to `make` a new channel; calls under way end on the old one. For several threads."""

    def __init__(self, make: Callable[[], grpc.Channel], has_changed: Callable[[], bool]) -> None:
        self._make = make
        self._has_changed = has_changed
        self._lock = Lock()
        self._channel = make()
        self._looked_s = time.monotonic()
        self._retired: list[tuple[float, grpc.Channel]] = []

    def current(self) -> grpc.Channel:
        """The channel for a new call."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LOOK_EVERY_S:
            with self._lock:
                self._look(now_s)
        return self._channel

    def _look(self, now_s: float) -> None:
        if now_s - self._looked_s < _LOOK_EVERY_S:
            return  # another thread has just looked
        self._looked_s = now_s
        if self._has_changed():
            self._retired.append((now_s, self._channel))
            self._channel = self._make()
        while self._retired and now_s - self._retired[0][0] > _RETIRE_AFTER_S:
            self._retired.pop(0)[1].close()

    def unary_unary(self, method: str, *arguments: Any, **named: Any) -> Any:
        return _Callable(self, lambda channel: channel.unary_unary(method, *arguments, **named))

    def unary_stream(self, method: str, *arguments: Any, **named: Any) -> Any:
        return _Callable(self, lambda channel: channel.unary_stream(method, *arguments, **named))

    def stream_unary(self, method: str, *arguments: Any, **named: Any) -> Any:
        return _Callable(self, lambda channel: channel.stream_unary(method, *arguments, **named))

    def stream_stream(self, method: str, *arguments: Any, **named: Any) -> Any:
        return _Callable(self, lambda channel: channel.stream_stream(method, *arguments, **named))

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool | None = False
    ) -> None:
        self._channel.subscribe(callback, bool(try_to_connect))

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        with self._lock:
            for _, channel in self._retired:
                channel.close()
            self._retired.clear()
            self._channel.close()

    def __enter__(self) -> RenewingChannel:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class _Callable:
    """One method of a stub, on whichever channel is current."""

    def __init__(self, owner: RenewingChannel, bind: Callable[[grpc.Channel], Any]) -> None:
        self._owner = owner
        self._bind = bind
        channel = owner.current()
        # Replaced as one, so that a thread never pairs an old channel with a new method.
        self._bound: tuple[grpc.Channel, Any] = (channel, bind(channel))

    def _method(self) -> Any:
        channel = self._owner.current()
        bound, method = self._bound
        if bound is not channel:
            method = self._bind(channel)
            self._bound = (channel, method)
        return method

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._method()(*arguments, **named)

    def with_call(self, *arguments: Any, **named: Any) -> Any:
        return self._method().with_call(*arguments, **named)

    def future(self, *arguments: Any, **named: Any) -> Any:
        return self._method().future(*arguments, **named)
