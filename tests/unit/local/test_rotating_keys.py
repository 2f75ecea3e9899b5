"""`likeness keys rotate-images` where there is no data folder: in the pod of the service whose pictures are sealed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.local.backup.keys_cli import keys_app
from services.shared.adapters.image_keys import ImageKeys
from services.shared.adapters.master_key import MasterKeyFile
from services.shared.database import create_engine
from services.shared.errors import ConfigurationError
from services.shared.settings import DatabaseSettings


@pytest.mark.parametrize("store", ["INGEST__IMAGES", "SEARCH__PROBES", "REVIEW__IMAGES"])
def test_the_keys_are_those_of_its_own_settings(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, file = f"sqlite:///{tmp_path / 'keys.sqlite'}", tmp_path / "master.key"
    monkeypatch.setenv(f"LIKENESS_{store}__KEYS_URL", url)
    monkeypatch.setenv(f"LIKENESS_{store}__MASTER_KEY_PATH", str(file))
    keys = ImageKeys(create_engine(DatabaseSettings(url=url)), MasterKeyFile(file))
    made = keys.ensure({"a" * 64: ""})
    before = file.read_bytes()
    done = CliRunner().invoke(keys_app, ["rotate-images"], catch_exceptions=False)
    assert (done.exit_code, done.output.startswith("1 keys")) == (0, True), done.output
    assert file.read_bytes() != before
    assert keys.find(["a" * 64]) == made
    keys.close()


def test_where_nothing_is_sealed_it_says_so() -> None:
    with pytest.raises(ConfigurationError, match="No key table"):
        CliRunner().invoke(keys_app, ["rotate-images"], catch_exceptions=False)
