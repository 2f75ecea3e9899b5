"""`likeness identify` against a running search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from services.search.cli import register
from services.shared.errors import ConfigurationError, DependencyUnavailable, Forbidden, InvalidRequest
from tests.integration.search.process import RunningSearch


def call(search: RunningSearch, image: bytes, *changes: str, **claims: object) -> Result:
    token, probe = search.root / "operator.token", search.root / "probe.jpg"
    token.write_text(search.issuer.token(**dict(claims)) + "\n")  # type: ignore[arg-type]
    probe.write_bytes(image)
    arguments = {
        "--watchlist": "custody",
        "--case": "NS/1",
        "--purpose": "prevention_and_detection",
        "--offence": "burglary",
        "--source": "cctv",
        "--token": str(token),
        "--url": search.url,
    }
    given = [part for name, value in arguments.items() if name not in changes for part in (name, value)]
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, [str(probe), *given, *changes], env={"COLUMNS": "140"})


def test_candidates_are_printed_with_what_must_be_said(search: RunningSearch) -> None:
    result = call(search, b"face:ann")
    assert result.exit_code == 0, result.output
    assert "1.0000" in result.output
    assert "ANN" in result.output
    assert "FOR INTELLIGENCE PURPOSES ONLY" in result.output
    assert "gallery" in result.output
    assert "%" not in result.output


def test_json_is_the_answer_itself(search: RunningSearch) -> None:
    result = call(search, b"face:ann", "--json", "--max-candidates", "3", "--mode", "identification")
    answer = json.loads(result.output)
    assert [candidate["subject_id"] for candidate in answer["candidates"]] == ["ANN", "CAT"]
    assert answer["request"]["max_candidates"] == 3


def test_what_the_picture_is_said_to_be_goes_with_it(search: RunningSearch) -> None:
    assert (
        "needs a supervisor: The request says that the picture was retouched."
        in call(search, b"face:ann", "--nature", "retouched").output
    )
    assert isinstance(call(search, b"face:ann", "--nature", "generated").exception, Forbidden)
    assert isinstance(call(search, b"face:ann", "--nature", "painting").exception, InvalidRequest)


def test_a_face_is_chosen_from_a_table(search: RunningSearch) -> None:
    several = call(search, b"faces:cat,bob")
    assert several.exit_code == 2
    assert "--face N" in several.output
    as_json = call(search, b"faces:cat,bob", "--json")
    assert (as_json.exit_code, len(json.loads(as_json.output)["faces"])) == (2, 2)
    assert "BOB" in call(search, b"faces:cat,bob", "--face", "1").output


def test_what_goes_wrong_is_told(search: RunningSearch, tmp_path: Path) -> None:
    unknown = call(search, b"face:ann", "--watchlist", "nobodys")
    assert isinstance(unknown.exception, InvalidRequest)
    assert "watchlists: Unknown: 'nobodys'" in unknown.exception.detail
    assert isinstance(call(search, b"face:ann", roles=["auditor"]).exception, Forbidden)
    refused = call(search, b"face:ann", "--json", roles=["auditor"])
    assert (refused.exit_code, json.loads(refused.output)["code"]) == (1, "forbidden")
    assert isinstance(call(search, b"face:ann", "--url", "http://127.0.0.1:9").exception, DependencyUnavailable)
    assert isinstance(call(search, b"face:ann", "--url", "nonsense").exception, DependencyUnavailable)
    missing = call(search, b"face:ann", "--token", str(tmp_path / "none"))
    assert isinstance(missing.exception, ConfigurationError)
    assert "likeness up" in missing.exception.advice


@pytest.mark.parametrize("option", ["--case", "--purpose", "--offence", "--source", "--watchlist"])
def test_what_must_be_said_is_asked_for(option: str, tmp_path: Path) -> None:
    probe = tmp_path / "probe.jpg"
    probe.write_bytes(b"x")
    given = {"--watchlist": "a", "--case": "b", "--purpose": "c", "--offence": "d", "--source": "e"}
    app = typer.Typer()
    register(app)
    arguments = [part for name, value in given.items() if name != option for part in (name, value)]
    result = CliRunner().invoke(app, [str(probe), *arguments])
    assert result.exit_code == 2
    assert option in result.output
