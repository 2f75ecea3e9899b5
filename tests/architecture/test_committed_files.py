"""What may stand in the repository: no foreign files, no addresses of package indexes, nothing of one machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repository import ROOT, committed_files, committed_texts

MAX_BYTES = 1_000_000
MAX_LINES = 500
MAX_FUNCTION_LINES = 80
# Files over the limit, each with its reason. Generated code is not counted.
LONGER_FILES: set[str] = set()
LONGER_FUNCTIONS = {
    # Every metric of the platform is declared in one place.
    "services/shared/telemetry.py __init__",
}
# Put together from pieces, so that this file does not name what it forbids.
_INDEX_NAMES = ("py" + "pi", "python" + "hosted", "np" + "mjs", "maven", "crates")
_HOSTS = re.compile(rf"\b(?:[\w-]+\.)*(?:{'|'.join(_INDEX_NAMES)})\.(?:org|io|com)\b")
_MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:work|farm|root)/[\w.]")
_UNFINISHED = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
_BINARY_ENDINGS = (".onnx", ".whl", ".jar", ".so", ".gz", ".zip", ".sqlite", ".pem", ".token")


def _hits(pattern: re.Pattern[str]) -> Iterator[str]:
    for path, text in committed_texts():
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                yield f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"


@pytest.mark.parametrize(
    "pattern", [_HOSTS, _MACHINE_PATHS, _UNFINISHED], ids=["index hosts", "machine paths", "unfinished work"]
)
def test_no_committed_line_has(pattern: re.Pattern[str]) -> None:
    assert not list(_hits(pattern))


def test_committed_files_are_small_and_our_own() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes"
        for path in committed_files()
        if path.stat().st_size > MAX_BYTES or path.name.endswith(_BINARY_ENDINGS)
    ]
    assert not wrong


def test_names_fit_every_file_system() -> None:
    names = [str(path.relative_to(ROOT)) for path in committed_files()]
    assert not [name for name in names if len(name) > 150 or not re.fullmatch(r"[\w./@-]+", name, re.ASCII)]
    assert len({name.lower() for name in names}) == len(names), "two names differ in case only"


def _own_sources() -> list[Path]:
    generated = ROOT / "services" / "rpc" / "v1"
    sources = (path for path in committed_files() if path.suffix == ".py" and path.is_relative_to(ROOT / "services"))
    return [path for path in sources if generated not in path.parents]


def test_source_files_stay_readable_in_one_go() -> None:
    long = {str(path.relative_to(ROOT)) for path in _own_sources() if path.read_text().count("\n") > MAX_LINES}
    assert long <= LONGER_FILES, long - LONGER_FILES


def test_functions_stay_readable_on_one_screen_or_two() -> None:
    long = {
        f"{path.relative_to(ROOT)} {node.name}"
        for path in _own_sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= MAX_FUNCTION_LINES
    }
    assert long <= LONGER_FUNCTIONS, long - LONGER_FUNCTIONS


def test_nothing_swallows_every_exception() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in _own_sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or getattr(node.type, "id", "") in {"Exception", "BaseException"})
        and len(node.body) == 1
        and isinstance(node.body[0], ast.Pass | ast.Continue)
    ]
    assert not found
