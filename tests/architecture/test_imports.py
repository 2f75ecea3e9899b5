"""Who may import whom, as pyproject.toml says it."""

import subprocess
import sys
from pathlib import Path

from tests.support.repository import ROOT


def test_imports_keep_to_the_contracts(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_connects_or_starts_at_import() -> None:
    """Importing every composition root opens no socket, starts no thread and reads no setting."""
    script = """
import os, socket, sys, threading
for name in list(os.environ):
    if name.startswith("LIKENESS_"):
        del os.environ[name]
def refuse(*_arguments, **_options):
    raise AssertionError("a connection at import")
socket.socket.connect = refuse
for service in ("ingest", "embed", "search", "review", "audit"):
    __import__(f"services.{service}.bootstrap")
    __import__(f"services.{service}.settings")
names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
sys.exit(f"threads at import: {names}" if names else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
