"""What an administrator and an operator read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from services.search.partners.cli import partners_app, print_consortium
from services.search.partners.config import PartnerFile
from services.shared.errors import ConfigurationError, InvalidRequest
from tests.support.partners import Side, introduce


def test_a_key_is_made_once_and_a_file_is_read_as_the_service_does(north: Side, east: Side, tmp_path: Path) -> None:
    made = CliRunner().invoke(partners_app, ["new-key", str(tmp_path / "key.pem")])
    assert made.exit_code == 0
    assert made.output.startswith('token_key = "')
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    assert isinstance(CliRunner().invoke(partners_app, ["new-key", str(tmp_path / "key.pem")]).exception, Exception)
    introduce(north, east)
    told = CliRunner().invoke(partners_app, ["check", str(north.file)]).output
    assert "eastmoor speaks for eastmoor: asked at https://127.0.0.1" in told
    assert "may ask for op_liberal" in told


def test_every_partner_and_every_list_is_named() -> None:
    candidate = {"rank": 1, "score": 0.5, "source_rank": 1, "watchlist": "op_liberal", "owner": "eastmoor"}
    problem = {"detail": "No agreement.", "advice": "Ask."}
    answer: dict[str, Any] = {
        "consortium_id": "c-1",
        "home": {"source": "northshire", "search_id": "s-1"},
        "partners": [
            {"partner": "eastmoor", "status": "answered", "answer": {"search_id": "s-2"}},
            {"partner": "westhaven", "status": "refused", "answer": None, "problem": problem},
        ],
        "lists": [
            {
                "sources": ["eastmoor"],
                "model_id": "m1",
                "candidates": [{**candidate, "source": "eastmoor", "subject_id": "[b]EM"}],
            },
            {"sources": ["northshire"], "model_id": "m2", "candidates": []},
        ],
        "statements": ["A statement."],
    }
    stream = io.StringIO()
    print_consortium(Console(file=stream, width=150), answer)
    told = stream.getvalue()
    for words in (
        "westhaven: refused. No agreement. Ask.",
        "[b]EM",
        "eastmoor, model m1",
        "No candidate.",
        "A statement",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("https://", "http://"),
        ('address = "https://127', 'address = "https://user@127'),
        ('forces = ["eastmoor"]', 'forces = ["northshire"]'),
        ('name = "eastmoor"', 'name = "northshire"'),
        ("token_key = ", "another_key = "),
        ("signing-key.pem", "nothing.pem"),
        ("timeout_s = 10.0", "timeout_s = 600"),
    ],
)
def test_a_file_that_is_wrong_is_refused_whole(north: Side, east: Side, old: str, new: str) -> None:
    introduce(north, east)
    file = PartnerFile(north.file)
    assert file.current().named(("eastmoor",))
    with pytest.raises(InvalidRequest):
        file.current().named(("westhaven",))
    written = north.file.read_text("utf-8")
    assert old in written
    north.file.write_text(written.replace(old, new, 1) + "\n", "utf-8")
    with pytest.raises(ConfigurationError):
        file.current()
    with pytest.raises(ConfigurationError):
        file.current()  # not yesterday's partners either
