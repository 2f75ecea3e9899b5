"""Is a port free, is a service ready?"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Mapping

import psutil

from services.local.deployment import HOST, ServicePorts, addresses
from services.shared.errors import ConfigurationError

_PROBE_TIMEOUT_S = 1.0


def waiting_for(port: int) -> str:
    """What a service says it still waits for; empty when it is ready."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read()
        if answer.status == 200:
            return ""
        reasons = json.loads(body).get("waiting_for", {})
        return "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or f"HTTP {answer.status}"
    except ConnectionRefusedError:
        return "starting"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"no answer yet ({type(error).__name__})"
    finally:
        connection.close()


def require_free_ports(ports: Mapping[str, ServicePorts], wait_s: float, waiting: Callable[[str], None]) -> None:
    """Wait a little for ports that are being given up, then raise ConfigurationError that names each taken one."""
    deadline = time.monotonic() + wait_s
    has_said = False
    while taken := [entry for entry in addresses(ports) if not _is_free(entry[2])]:
        if time.monotonic() > deadline:
            raise _occupied(taken)
        if not has_said:
            waiting(f"port {taken[0][2]} is still in use")
            has_said = True
        time.sleep(0.1)


def _is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


def _occupied(taken: list[tuple[str, str, int]]) -> ConfigurationError:
    named = ", ".join(f"{port} ({service} {side}{_listener(port)})" for service, side, port in taken)
    example = ",".join(f"{service}.{side}={port + 1000}" for service, side, port in taken)
    return ConfigurationError(
        f"Ports are in use by another program: {named}.",
        advice=f"Stop that program, or choose others: --ports {example} (or --ports auto).",
    )


def _listener(port: int) -> str:
    """`, held by <program>` where the system lets us see it."""
    try:
        for entry in psutil.net_connections("tcp"):
            if entry.status == psutil.CONN_LISTEN and entry.laddr and entry.laddr.port == port and entry.pid:
                return f", held by {psutil.Process(entry.pid).name()} with process id {entry.pid}"
    except psutil.Error:
        return ""
    return ""
