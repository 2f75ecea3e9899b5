"""The command line tells what it is without importing everything, and errors without tracebacks."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import PARTS, assemble, main


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments], capture_output=True, text=True, timeout=240, check=False
    )


def test_help_lists_every_command() -> None:
    shown = CliRunner().invoke(assemble(["--help"]), ["--help"])
    assert shown.exit_code == 0
    assert all(name in shown.output for name in PARTS)


@pytest.mark.parametrize("name", PARTS)
def test_every_command_loads_and_explains_itself(name: str) -> None:
    shown = CliRunner().invoke(assemble([name]), [name, "--help"])
    assert shown.exit_code == 0, shown.output
    assert "Usage" in shown.output


def test_help_imports_no_service() -> None:
    script = (
        "import sys; from services.cli import assemble\n"
        "try: assemble(['--help'])(['--help'])\n"
        "except SystemExit: pass\n"
        "slow = {'numpy', 'fastapi', 'grpc', 'sqlalchemy', 'faiss', 'onnxruntime', 'pydantic'} & sys.modules.keys()\n"
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


def test_an_error_says_what_to_do_and_shows_no_traceback(tmp_path: Path) -> None:
    done = _run("token", "--role", "operator", "--data", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "likeness up --data" in done.stderr
    assert "Traceback" not in done.stderr


def test_down_and_status_say_when_nothing_runs(tmp_path: Path) -> None:
    down, status = _run("down", "--data", str(tmp_path)), _run("status", "--data", str(tmp_path))
    assert (down.returncode, status.returncode) == (0, 1)
    assert "Nothing runs" in down.stdout
    assert "Nothing runs" in status.stdout


def test_the_version_is_told() -> None:
    shown = CliRunner().invoke(assemble(["--version"]), ["--version"])
    assert shown.exit_code == 0
    assert shown.output.startswith("likeness ")


def test_what_the_file_system_refuses_is_told_with_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "a-file"
    there.touch()
    monkeypatch.setattr(sys, "argv", ["likeness", "assurance", "write", str(there), "--data", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"likeness: File exists ({there}).\n")
