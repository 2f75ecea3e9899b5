"""Calls to a Milvus server: every one with a deadline, a breaker in front, foreign errors translated."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from services.shared.adapters.extras import require
from services.shared.errors import DependencyUnavailable, GalleryIncomplete, LikenessError

# After this many failures in a row nothing is asked for BREAK_S: a slow server is not helped by more questions, and
# callers get their error at once instead of after the deadline.
BREAK_AFTER = 5
BREAK_S = 5.0
# pymilvus waits out its whole deadline for a server that is not there; after this long we look ourselves.
_LOOK_AFTER_S = 1.0
_HANGS_UP_AFTER_S = 0.3
_THREADS = 32
_ADVICE = "Try again; operators: check that Milvus is up and not overloaded."
# What Milvus says when a server or a node of it does not answer, as opposed to an answer that is a refusal.
_UNREACHABLE = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "Retry timeout", "Fail connecting", "CANCELLED", "Connection reset")


def seeing(timestamp: int) -> dict[str, Any]:
    """The arguments by which a read sees everything up to the server's time `timestamp`."""
    return {"consistency_level": "Customized", "guarantee_timestamp": timestamp}


class Breaker:
    """Counts failures in a row; open, it refuses for BREAK_S, then lets one caller try."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._failures = 0
        self._closed_again_s = 0.0

    def check(self) -> None:
        """Raises DependencyUnavailable while open."""
        with self._lock:
            if self._failures < BREAK_AFTER:
                return
            if monotonic() < self._closed_again_s:
                raise DependencyUnavailable("Milvus failed repeatedly and is given a rest.", advice=_ADVICE)
            self._closed_again_s = monotonic() + BREAK_S  # this caller tries; the others wait for what it finds

    def succeeded(self) -> None:
        with self._lock:
            self._failures = 0

    def failed(self) -> None:
        with self._lock:
            self._failures += 1
            self._closed_again_s = monotonic() + BREAK_S


class MilvusCalls:
    """One client of one server, opened by the first call.

    Calls run on threads of their own, because pymilvus keeps retrying past the deadline it was given; a caller never
    waits longer than its deadline. What a server refuses is GalleryIncomplete (it answered, and the answer is not what
    was asked for), what does not answer is DependencyUnavailable.
    """

    def __init__(self, uri: str, token: str, database: str, timeout_s: float) -> None:
        self._pymilvus = require("pymilvus", "milvus")
        # It logs every error with a stack trace before raising it; here they are translated and told once.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        self._uri = uri
        self._token = token
        self._database = database
        self._timeout_s = timeout_s
        self._breaker = Breaker()
        self._lock = Lock()
        self._client: Any = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="milvus")

    @property
    def library(self) -> Any:
        return self._pymilvus

    def ask(self, method: str, *arguments: Any, timeout_s: float | None = None, **named: Any) -> Any:
        """Call a method of the client and wait for its answer."""
        [answer] = self.ask_all([(method, arguments, named)], timeout_s=timeout_s)
        return answer

    def ask_all(
        self, calls: Sequence[tuple[str, tuple[Any, ...], dict[str, Any]]], *, timeout_s: float | None = None
    ) -> list[Any]:
        """Several calls at the same time, one deadline for all; answers in the order of the calls."""
        limit_s = timeout_s or self._timeout_s

        def bound(call: tuple[str, tuple[Any, ...], dict[str, Any]]) -> Callable[[], Any]:
            method, arguments, named = call
            return lambda: getattr(self._opened(limit_s), method)(*arguments, timeout=limit_s, **named)

        return self._all([bound(call) for call in calls], limit_s)

    def _ask_connection(self, method: str) -> Any:
        limit_s = self._timeout_s

        def call() -> Any:
            return getattr(self._opened(limit_s)._get_connection(), method)(timeout=limit_s)

        [answer] = self._all([call], limit_s)
        return answer

    def _all(self, calls: Sequence[Callable[[], Any]], limit_s: float) -> list[Any]:
        self._breaker.check()
        deadline_s = monotonic() + limit_s
        try:
            futures = [self._threads.submit(call) for call in calls]
            answers = [self._wait(future, deadline_s) for future in futures]
        except RuntimeError as error:
            raise DependencyUnavailable("The gallery is closed.", advice=_ADVICE) from error
        except DependencyUnavailable:
            self._breaker.failed()
            raise
        self._breaker.succeeded()
        return answers

    def timestamp(self) -> int:
        """The server's time as its hybrid number: a read that is guaranteed to see it sees every write before it."""
        # The client has this call only on its connection.
        return int(self._ask_connection("alloc_timestamp"))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):  # nothing is left to do for a connection that cannot even be closed
                client.close()

    def _opened(self, timeout_s: float) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._pymilvus.MilvusClient(
                    uri=self._uri,
                    token=self._token,
                    db_name=self._database,
                    timeout=timeout_s,
                    dedicated=True,  # a connection shared through the library's registry would outlive this one
                )
            return self._client

    def _wait(self, future: Future[Any], deadline_s: float) -> Any:
        try:
            try:
                return future.result(min(_LOOK_AFTER_S, max(0.0, deadline_s - monotonic())))
            except FutureTimeoutError:
                if not self._is_there():
                    raise DependencyUnavailable("Milvus is not there.", advice=_ADVICE) from None
                return future.result(max(0.0, deadline_s - monotonic()))
        except FutureTimeoutError as error:
            raise DependencyUnavailable("Milvus did not answer in time.", advice=_ADVICE) from error
        except LikenessError:
            raise
        except Exception as error:  # the library raises its own, gRPC's and plain exceptions
            raise self._translated(error) from error
        finally:
            future.cancel()

    def _translated(self, error: Exception) -> LikenessError:
        text = str(getattr(error, "message", "") or error)
        code = getattr(error, "code", None)  # a number in the library's errors, a method in gRPC's
        if not isinstance(code, int) or any(sign in text for sign in _UNREACHABLE):
            return DependencyUnavailable(f"Milvus does not answer: {text[:200]}", advice=_ADVICE)
        return GalleryIncomplete(
            f"Milvus refuses: {text[:300]}",
            advice="Operators: see that the collection is loaded and whole; reconcile the gallery with the ledger.",
            context={"milvus_code": code},
        )

    def _is_there(self) -> bool:
        """Whether anything accepts connections at the server's address, and keeps them: a balancer in front of a server
        that is gone accepts and hangs up. A file of Milvus Lite always does."""
        address = urlsplit(self._uri)
        if address.scheme not in ("http", "https", "tcp") or address.hostname is None:
            return True
        try:
            connection = socket.create_connection((address.hostname, address.port or 19530), timeout=_LOOK_AFTER_S)
        except OSError:
            return False
        with connection:
            connection.settimeout(_HANGS_UP_AFTER_S)
            try:
                return connection.recv(1) != b""
            except TimeoutError:
                return True  # it waits for what we have to say
            except OSError:
                return False
