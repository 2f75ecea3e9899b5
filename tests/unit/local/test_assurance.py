"""Documents bound to the configuration: what is filled in, and that a difference is found."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.local.assurance.cli import assurance_app
from services.local.assurance.documents import DOCUMENTS, Kind, drift
from services.local.assurance.facts import SETTINGS, gather
from services.local.deployment import DataFolder
from services.shared.cores import places


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    with resources.as_file(resources.files("services.shared").joinpath("watchlists.toml")) as packaged:
        shutil.copy(packaged, folder / "watchlists.toml")
    return folder


def _run(*arguments: object, **variables: str) -> Any:
    environment: dict[str, str | None] = {"COLUMNS": "200", **variables}
    return CliRunner().invoke(assurance_app, list(map(str, arguments)), env=environment)


def test_documents_that_were_just_written_do_not_differ(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "assurance"
    assert _run("write", out, "--data", data).exit_code == 0
    assert {path.name for path in out.iterdir()} == set(DOCUMENTS)
    checked = _run("check", out, "--data", data)
    assert checked.exit_code == 0, checked.output
    card = (out / "model-card.md").read_text("utf-8")
    facts = gather(DataFolder(data), {})
    assert facts["model.id"] in card
    assert len(facts["model.recogniser_sha256"]) == 64
    assert "yunet" in facts["model.detector"]
    assert not any("{{" in path.read_text("utf-8") for path in out.iterdir())


def test_no_secret_and_no_place_is_a_fact(data: Path) -> None:
    secrets = {"LIKENESS_SEARCH__PROBES__SECRET_KEY": "hush-1", "LIKENESS_SEARCH__GALLERY__TOKEN": "hush-2"}
    facts = gather(DataFolder(data), {**secrets, "LIKENESS_INGEST__EVENTS__SASL_PASSWORD": "hush-3"})
    assert not any("hush" in value for value in facts.values())
    assert not any(str(data) in value for value in facts.values())
    assert facts["setting.search.max_concurrent_searches"] == str(places(4, at_least=8, at_most=32))


def test_of_places_and_secrets_it_is_said_whether_there_is_one(data: Path) -> None:
    given = {
        "LIKENESS_SEARCH__PROBES__SECRET_KEY": "hush-1",
        "LIKENESS_SEARCH__POLICY_PATH": str(data),
        "LIKENESS_AUDIT__WITNESSES__BUCKET__ENDPOINT": "minio:9000",
        "LIKENESS_AUDIT__WITNESSES__BUCKET__RETENTION_DAYS": "400",
    }
    bare, full = gather(DataFolder(data), {}), gather(DataFolder(data), given)
    for name in ("search.probes.secret_key", "search.policy_path"):
        assert (bare[f"setting.{name}"], full[f"setting.{name}"]) == ("none", "set")
    assert full["setting.audit.witnesses.bucket.endpoint"] == "set"
    assert full["setting.audit.witnesses.bucket.retention_days"] == "400"


def test_how_people_sign_in_is_a_fact_and_a_change_of_it_is_found(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "assurance"
    _run("write", out, "--data", data, LIKENESS_REVIEW__CONSOLE__TOKEN_SIGN_IN="true")
    assert "by token alone: <!--fact setting.review.console.token_sign_in-->yes" in (out / "dpia.md").read_text("utf-8")
    provider = {
        "LIKENESS_REVIEW__CONSOLE__TOKEN_SIGN_IN": "false",
        "LIKENESS_REVIEW__CONSOLE__OIDC__CLIENT_ID": "likeness-console",
        "LIKENESS_REVIEW__CONSOLE__OIDC__CLIENT_SECRET_PATH": str(data / "client-secret"),
        "LIKENESS_REVIEW__CONSOLE__OIDC__AUTHORIZATION_URL": "https://login.example/authorize",
        "LIKENESS_REVIEW__CONSOLE__OIDC__TOKEN_URL": "https://login.example/token",
        "LIKENESS_REVIEW__CONSOLE__OIDC__PUBLIC_URL": "https://likeness.example",
    }
    checked = _run("check", out, "--data", data, **provider)
    assert checked.exit_code == 1
    assert "setting.review.console.token_sign_in is 'no', the document says 'yes'" in checked.output
    assert "setting.review.console.oidc.client_id is 'likeness-console', the document says 'none'" in checked.output
    assert "setting.review.console.oidc.token_url is 'set', the document says 'none'" in checked.output
    assert "login.example" not in checked.output


def test_every_setting_is_a_fact_or_left_out_for_a_reason(data: Path) -> None:
    """A setting that comes new is looked at without anybody thinking of it."""
    facts = gather(DataFolder(data), {})
    for service, kind in SETTINGS.items():
        for name in _leaves_of(kind().model_dump(mode="json")):
            told = f"setting.{service}.{name}"
            last = name.rpartition(".")[2]
            is_place = {"host", "port", "peers"} & set(last.split("_")) or name.startswith("peers.")
            assert told in facts or is_place or last in {"log_level", "workers"}, told


def _leaves_of(value: Any, prefix: str = "") -> list[str]:
    if not isinstance(value, dict):
        return [prefix]
    return [leaf for name, one in value.items() for leaf in _leaves_of(one, f"{prefix}.{name}" if prefix else name)]


def test_every_kind_of_difference_is_found(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "assurance"
    _run("write", out, "--data", data)
    changed = _run("check", out, "--data", data, LIKENESS_SEARCH__MAX_CONCURRENT_SEARCHES="3")
    assert changed.exit_code == 1
    usual = places(4, at_least=8, at_most=32)
    assert f"setting.search.max_concurrent_searches is '3', the document says '{usual}'" in changed.output

    text = (data / "watchlists.toml").read_text("utf-8")
    (data / "watchlists.toml").write_text(text.replace('"missing_person", "deceased_identification", ', "", 1))
    assert "watchlist.custody.purposes" in _run("check", out, "--data", data).output
    (data / "watchlists.toml").write_text(text)

    other = _run("check", out, "--data", data, LIKENESS_EMBED__MODEL__MIRROR="always")
    assert "model-card.md: model.preprocessing" in other.output

    (out / "dpia.md").unlink()
    card = out / "model-card.md"
    card.write_text(card.read_text("utf-8").replace("<!--fact model.licence_gone-->x<!--/fact-->", ""))
    card.write_text(card.read_text("utf-8") + "<!--fact model.gone-->x<!--/fact-->\n")
    equality = out / "equality-assessment.md"
    equality.write_text("We looked and found nothing.\n")
    kinds = {(one.document, one.kind) for one in drift(out, gather(DataFolder(data), {}))}
    assert kinds == {
        ("dpia.md", Kind.MISSING),
        ("model-card.md", Kind.UNKNOWN),
        ("equality-assessment.md", Kind.LACKING),
    }


def test_facts_are_renewed_and_what_people_wrote_stays(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "assurance"
    _run("write", out, "--data", data)
    dpia = out / "dpia.md"
    dpia.write_text(dpia.read_text("utf-8").replace("_Data protection officer's advice", "Agreed by our DPO. _Advice"))
    variables = {"LIKENESS_AUDIT__CHECKPOINTS__INTERVAL_S": "30", "LIKENESS_SEARCH__MAX_CONCURRENT_SEARCHES": "3"}
    assert _run("check", out, "--data", data, **variables).exit_code == 1
    assert "left as it is" in _run("write", out, "--data", data, **variables).output
    assert _run("write", out, "--data", data, "--update", **variables).exit_code == 0
    assert _run("check", out, "--data", data, **variables).exit_code == 0
    text = dpia.read_text("utf-8")
    assert "Agreed by our DPO." in text
    assert "signed every <!--fact setting.audit.checkpoints.interval_s-->30.0<!--/fact--> s" in text
