"""ClamAV's daemon from Debian, with signatures of the tests' own: nothing is fetched, freshclam is not run."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from tests.stack.servers.base import ServerProcess, accepts_connections, apt_install, free_ports, temporary_data

# What every file of the tests that is to be found has in it, and what clamd calls it.
MARKER = b"likeness: a marker that the scanner of the tests knows, and harmless"
SIGNATURE = "Likeness.Test.Marker"
_PROGRAM = Path("/usr/sbin/clamd")


def _configuration(data: Path, port: int) -> str:
    settings = {
        "DatabaseDirectory": data / "signatures",
        "TCPSocket": port,
        "TCPAddr": "127.0.0.1",
        "LocalSocket": data / "clamd.ctl",
        "FixStaleSocket": "yes",
        "Foreground": "yes",
        "LogTime": "yes",
        "MaxThreads": 4,
        "StreamMaxLength": "64M",
        "TemporaryDirectory": data,
        "User": pwd.getpwuid(os.getuid()).pw_name,
    }
    return "".join(f"{name} {value}\n" for name, value in settings.items())


def clamd_server() -> tuple[ServerProcess, str, Path]:
    """A daemon that is not started yet, its address and its socket."""
    if not _PROGRAM.exists():
        apt_install("clamav-daemon")
    data = temporary_data("clamd")
    (data / "signatures").mkdir()
    # Name, target (0: any file), offset (anywhere), bytes: docs.clamav.net, "body-based signatures".
    (data / "signatures" / "tests.ndb").write_text(f"{SIGNATURE}:0:*:{MARKER.hex()}\n")
    (port,) = free_ports(1)
    configuration = data / "clamd.conf"
    configuration.write_text(_configuration(data, port))
    server = ServerProcess(
        "clamd", [_PROGRAM, "--config-file", configuration], data, is_ready=lambda: accepts_connections(port)
    )
    return server, f"127.0.0.1:{port}", data / "clamd.ctl"
