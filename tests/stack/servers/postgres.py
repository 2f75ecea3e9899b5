"""PostgreSQL from Debian's packages, run as the user postgres when we are root."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from pathlib import Path

from tests.stack.servers.base import (
    ServerProcess,
    ServerUnavailable,
    apt_install,
    free_ports,
    run,
    temporary_data,
)


def binaries() -> Path:
    """Where initdb, pg_dump and the others are; the package is installed when they are missing."""
    if _binaries() is None:
        apt_install("postgresql")
    found = _binaries()
    if found is None:
        raise ServerUnavailable("postgresql is installed, but initdb is not under /usr/lib/postgresql")
    return found


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def postgres_server() -> tuple[ServerProcess, str]:
    """A server that is not started yet, and the URL of its superuser as SQLAlchemy writes it."""
    programs = binaries()
    user = "postgres" if os.geteuid() == 0 else None
    data = temporary_data("postgres")
    password = secrets.token_hex(16)
    secret = data / "password"
    secret.write_text(password)
    if user is not None:
        shutil.chown(data, user)
        shutil.chown(secret, user)
    cluster = data / "cluster"
    run(
        [programs / "initdb", "-D", cluster, "-U", "stack", "-A", "scram-sha-256", "--pwfile", secret, "-E", "UTF8"],
        "initdb",
        user=user,
        cwd=data,
        timeout_s=300,
    )
    (port,) = free_ports(1)
    ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "stack"]

    def is_ready() -> bool:
        try:
            run(ready, "pg_isready", timeout_s=30)
        except ServerUnavailable:
            return False
        return True

    server = ServerProcess(
        "PostgreSQL",
        [programs / "postgres", "-D", cluster, "-p", str(port), "-k", "", "-c", "listen_addresses=127.0.0.1"],
        data,
        is_ready=is_ready,
        user=user,
        stop_signal=signal.SIGINT,  # fast shutdown: end the sessions, then checkpoint
    )
    return server, f"postgresql+psycopg://stack:{password}@127.0.0.1:{port}/postgres"
