"""Generated code is what its sources make; the lock file holds what is asked for."""

import re
import subprocess
import sys
import tomllib

from tests.support.repository import ROOT


def test_grpc_code_is_current() -> None:
    command = [sys.executable, "scripts/generate_rpc.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;~! ]", entry, maxsplit=1)[0].lower().replace("_", "-") for entry in requirements}


def test_the_lock_pins_every_dependency_by_hash_and_names_no_address() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = _names(project["project"]["dependencies"]) | _names(project["dependency-groups"]["dev"])
    lock = (ROOT / "requirements" / "dev.lock").read_text()
    pinned = [line for line in lock.splitlines() if line and not line.startswith((" ", "#", "-"))]
    assert wanted <= _names(pinned)
    assert lock.count("==") >= len(pinned)
    assert all("==" in line for line in pinned)
    blocks = re.split(r"\n(?=\S)", lock.strip())
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in lock
