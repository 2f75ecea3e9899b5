"""The filter of system calls in a gate worker: what code that has taken over a decoder could still do."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from prometheus_client import CollectorRegistry

from services.embed.gate.pool import GatePool
from services.embed.settings import GateSettings
from services.shared.telemetry import Metrics
from tests.support.repository import ROOT

ATTEMPTS = {
    "open": "open('/etc/passwd')",
    "write": "open('/tmp/likeness-must-not-exist', 'w')",
    "socket": "socket.socket()",
    "socketpair": "socket.socketpair()",
    "connect": "held.connect(('127.0.0.1', 9))",
    "fork": "os.fork()",
    "execute": "os.execv('/bin/true', ['true'])",
    "kill": "os.kill(os.getppid(), 0)",
    "memory file": "os.memfd_create('x')",
    "rename": "os.rename('/etc/hostname', '/etc/hostname2')",
}
PROGRAM = """
import os, socket
from services.embed.gate.confinement import confine
held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if not confine():
    raise SystemExit(77)
try:
    {attempt}
except PermissionError:
    raise SystemExit(0)
raise SystemExit(1)
"""


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_an_attempt_is_refused(attempt: str) -> None:
    program = textwrap.dedent(PROGRAM).format(attempt=attempt)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=180, check=False)
    if done.returncode == 77:
        pytest.skip("no system call filter on this kernel or architecture")
    assert done.returncode == 0


def test_a_thread_may_be_started() -> None:
    program = textwrap.dedent(PROGRAM).format(attempt="threading.Thread(target=print, args=('ran',)).start()")
    program = program.replace("import os, socket", "import os, socket, threading").replace("raise SystemExit(1)", "")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=180, check=False, capture_output=True)
    assert done.returncode in {0, 77}, done.stderr
    assert done.returncode == 77 or done.stdout == b"ran\n"


def test_every_worker_says_whether_it_is_confined() -> None:
    pool = GatePool(GateSettings(workers=1), Metrics(CollectorRegistry()))
    pool.start()
    try:
        assert pool.is_confined or sys.platform != "linux"
    finally:
        pool.close()
