"""What deploy/ and k8s/ set for Milvus keeps what docs/gallery-life.md says: nothing of the erased after an hour."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.repository import ROOT

FILES = ("deploy/milvus/user.yaml", "k8s/components/milvus/user.yaml")
HOUR_S = 3600


@pytest.mark.parametrize("file", FILES)
def test_what_was_erased_leaves_the_files_of_milvus_within_the_hour(file: str) -> None:
    settings = yaml.safe_load(Path(ROOT / file).read_text("utf-8"))
    log, gc = settings["rocksmq"], settings["dataCoord"]["gc"]
    assert log["rocksmqPageSize"] <= 65536, "a page that stays open keeps everything that is in it"
    retention_s = 60 * log["retentionTimeInMinutes"]
    # Each topic is looked at again after a tenth of the retention, at the next check.
    assert retention_s * 1.1 + log["timtickerInterval"] + log["compactionInterval"] <= HOUR_S - 600
    # Compaction is asked for within five minutes.
    assert 300 + gc["interval"] + gc["dropTolerance"] <= HOUR_S
