"""The runbooks for backups and for keys, done as they are written, on a platform of real processes."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from services.local.deployment import HOST, free_ports
from tests.support.casework import post_enrolment, post_search, wait_settled
from tests.support.portraits import portraits
from tests.support.runbooks import blocks

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


class Operator:
    """Somebody with a shell in an empty folder, on free ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = free_ports()
        listed = ",".join(
            f"{service}.{side}={port}"
            for service, pair in self.ports.items()
            for side, port in (("http", pair.http), ("grpc", pair.grpc))
        )
        self._up = f"likeness up --ports {listed} "
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LIKENESS_INGEST_URL": f"http://{HOST}:{self.ports['ingest'].http}",
        }

    def try_to(self, block: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.replace("likeness up ", self._up)],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def do(self, block: str) -> str:
        done = self.try_to(block)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def client(self, service: str, role: str) -> httpx.Client:
        token = (self.folder / "data" / "tokens" / f"{role}.token").read_text()
        url = f"http://{HOST}:{self.ports[service].http}"
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False)

    def enrol(self, subject_id: str, picture: bytes) -> None:
        with self.client("ingest", "custodian") as custodian:
            answer = post_enrolment(custodian, picture, subject_id)
            assert answer.status_code in {200, 202}, answer.text
            enrolment_id = answer.json()["enrolment_id"]
            assert wait_settled(custodian, [enrolment_id])[enrolment_id] == "enrolled"

    def found(self, probe: bytes) -> list[str]:
        """The subjects on the candidate list."""
        with self.client("search", "operator") as operator:
            answer = post_search(operator, probe)
        assert answer.status_code == 200, answer.text
        return [candidate["subject_id"] for candidate in answer.json()["candidates"]]


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    person = Operator(tmp_path_factory.mktemp("operator"))
    person.do("likeness up --data data --detach")
    yield person
    person.try_to("likeness down --data data")


def test_what_was_backed_up_comes_back_and_what_was_erased_does_not(operator: Operator) -> None:
    other, reference, probe, second = portraits()
    backup, keys = blocks("backup-and-restore.md"), blocks("rotate-keys.md")
    operator.enrol("KEPT-1", reference)
    operator.enrol("ERASED-1", second)
    assert operator.found(probe)[0] == "KEPT-1"

    operator.do(backup["Take it"])
    record = operator.folder / "backups" / "record-1"
    held = b"".join(path.read_bytes() for path in record.rglob("*") if path.is_file())
    assert reference not in held  # sealed, and the keys are elsewhere
    assert [path.name for path in record.rglob("*") if path.name in {"master.key", "keys.sqlite"}] == []
    assert b"PRIVATE KEY" not in held

    # After the backup: one person is erased, the keys are backed up again, another is enrolled.
    operator.do("likeness gallery erase ERASED-1 --reason 'court order' --authority 'T-1'")
    operator.do("likeness backup --data data --to backups/only-for-its-keys --keys-to keys")
    operator.enrol("LATER-1", other)

    operator.do(backup["Put it back"].replace("likeness up --data data --detach\n", ""))
    # The witness knows of entries that the backup does not have: the log is not taken up as if nothing had happened.
    refused = operator.try_to("likeness up --data data --detach")
    assert refused.returncode != 0
    assert "witnessed checkpoint" in refused.stdout + refused.stderr
    operator.do(backup["When the audit service does not start"])
    before = operator.folder / "audit-before"
    assert (
        "witnessed"
        in operator.try_to(f"likeness audit verify {before}/audit.sqlite --witness {before}/audit-witness").stdout
    )
    said = operator.do(backup["See that it is whole"])
    assert "Nothing differed." in said

    assert operator.found(probe) == ["KEPT-1"]  # with its image's own key
    assert _states(operator) == {"KEPT-1": "enrolled"}

    _every_key_can_be_changed(operator, keys, probe)


def _states(operator: Operator) -> dict[str, str]:
    with operator.client("ingest", "custodian") as custodian:
        page = custodian.get("/v1/enrolments", params={"limit": 100}).json()
    return {item["subject_id"]: item["state"] for item in page["enrolments"] if item["state"] == "enrolled"}


def _every_key_can_be_changed(operator: Operator, steps: dict[str, str], probe: bytes) -> None:
    data = operator.folder / "data"
    secrets = ["image-keys/master.key", "audit/signing-key.pem", "tokens/jwks.json", "tls/ca.pem"]
    before = {name: (data / name).read_bytes() for name in secrets}
    old_token = (data / "tokens" / "auditor.token").read_text()
    old_keys = operator.folder / "old-keys"
    shutil.copytree(operator.folder / "keys", old_keys)

    said = ""
    for title, block in steps.items():
        said += operator.do(block)
        if title.startswith("The authority"):
            assert operator.found(probe) == ["KEPT-1"], "nothing was started again, and the services call each other"
    assert "endorsed by the old one" in said
    assert "1 former authorities are no longer believed" in said
    assert said.rstrip().endswith("Nothing differed.")

    assert [name for name in secrets if (data / name).read_bytes() == before[name]] == []
    assert operator.found(probe) == ["KEPT-1"]
    url = f"http://{HOST}:{operator.ports['audit'].http}/v1/audit/keys"
    assert (
        httpx.get(url, headers={"Authorization": f"Bearer {old_token}"}, timeout=60, trust_env=False).status_code == 401
    )
    with operator.client("audit", "auditor") as auditor:
        assert len(auditor.get("/v1/audit/keys").json()["keys"]) == 2
    _an_older_copy_of_the_keys_opens_nothing(old_keys, operator.folder / "keys")


def _an_older_copy_of_the_keys_opens_nothing(old: Path, new: Path) -> None:
    def wrapped(folder: Path) -> set[str]:
        with closing(sqlite3.connect(folder / "image-keys" / "keys.sqlite")) as connection:
            return {name for (name,) in connection.execute("SELECT master_id FROM image_keys WHERE wrapped != x''")}

    held = {each["id"] for each in json.loads((new / "image-keys" / "master.key").read_text())["keys"]}
    assert wrapped(new) == held
    assert not wrapped(old) & held
