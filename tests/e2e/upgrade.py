"""Old searches replayed by a newer version: `docs/operations/upgrade.md`, done.

    python -m tests.e2e.upgrade COMMIT [--to COMMIT] [--searches 100] [--more 100] [--keep]

The version of that commit is taken out of the repository's history, enrols real faces with the real networks, answers
searches and discloses each. Then the platform is upgraded to the working tree as the document says, the gallery is
rebuilt, and every bundle is verified and replayed by command. The commit must know `likeness disclosure` and have the
packages of today; it runs in this interpreter. Either version is asked over its own REST and by its own commands.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

from services.local.deployment import DataFolder
from services.local.disclosure.verify import verify_bundle
from tests.support.casework import post_enrolment, post_search, wait_settled
from tests.support.faces import DevelopmentFaces, shared_data

REPOSITORY = Path(__file__).resolve().parents[2]
LOCK = "requirements/dev.lock"
_COMMAND_S = 400.0
_ENTRY = "import sys; from services.cli import main; sys.exit(main())"
# Disclosures and commands that run at once: as many as the machine this is for has cores.
_AT_ONCE = 2
REASON = "replay after an upgrade"
_BACKUP = "likeness backup"


@dataclass(frozen=True)
class Version:
    """The sources of one version, and its commands on one data folder. `cache` holds packages and networks."""

    code: Path
    data: Path
    cache: Path

    def run(self, *arguments: str, codes: frozenset[int] = frozenset({0})) -> subprocess.CompletedProcess[str]:
        """A `likeness` command. RuntimeError with what it said when it ends with another code."""
        done = subprocess.run(
            [sys.executable, "-P", "-c", _ENTRY, *arguments],
            env={
                **os.environ,
                "PYTHONPATH": str(self.code),
                "PYTHONDONTWRITEBYTECODE": "1",
                "LIKENESS_CACHE": str(self.cache),
                "COLUMNS": "200",
            },
            cwd=self.data.parent,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
        if done.returncode not in codes:
            raise RuntimeError(f"likeness {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def start(self) -> None:
        self.run("up", "--data", str(self.data), "--ports", "auto", "--detach")

    def stop(self) -> None:
        self.run("down", "--data", str(self.data))

    def url(self, service: str) -> str:
        told = json.loads(self.run("status", "--data", str(self.data), "--json").stdout)
        return f"http://127.0.0.1:{told['services'][service]['http']}"

    def token(self, role: str) -> Path:
        """A file with a fresh token of that role."""
        file = self.data.parent / f"{role}.token"
        file.write_text(self.run("token", "--role", role, "--data", str(self.data), "--person", f"{role}-1").stdout)
        return file

    def client(self, service: str, role: str) -> httpx.Client:
        bearer = {"Authorization": f"Bearer {self.token(role).read_text().strip()}"}
        return httpx.Client(base_url=self.url(service), headers=bearer, timeout=60, trust_env=False)

    def knows(self, command: str) -> bool:
        return self.run(command, "--help", codes=frozenset({0, 2})).returncode == 0


def _pins(lock: str) -> set[str]:
    return {line.split()[0] for line in lock.splitlines() if "==" in line and not line.startswith((" ", "#"))}


def take_out(commit: str, into: Path) -> Path:
    """The sources of that commit, whose packages are those of today, but for new ones. RuntimeError otherwise."""
    then = subprocess.run(
        ["git", "show", f"{commit}:{LOCK}"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    changed = _pins(then) - _pins((REPOSITORY / LOCK).read_text("utf-8"))
    if changed:
        raise RuntimeError(f"{commit} has other packages than the working tree, take a newer one: {sorted(changed)}")
    into.mkdir()
    archive = subprocess.Popen(["git", "archive", commit, "services"], cwd=REPOSITORY, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", str(into)], stdin=archive.stdout, check=True)
    if archive.wait():
        raise RuntimeError(f"git archive {commit} failed")
    return into


def enrol_faces(old: Version, faces: DevelopmentFaces, searches: int, more: int) -> dict[str, str]:
    """A reference of everybody who is searched for and some of others; subject ids by enrolment_id, and states."""
    pairs = faces.mated_pairs()[: searches * 2]
    others = faces.split("distractor")[:more]
    stills = [*(reference for reference, _ in pairs), *others]
    with old.client("ingest", "custodian") as custodian:
        ids = [
            post_enrolment(custodian, still.path.read_bytes(), f"S-{number}").json()["enrolment_id"]
            for number, still in enumerate(stills)
        ]
        return wait_settled(custodian, ids, 400.0)


def search_and_disclose(old: Version, faces: DevelopmentFaces, searches: int, into: Path) -> list[Path]:
    """As many answered searches as are asked for, and a bundle of each."""
    into.mkdir()
    made: list[Path] = []
    with old.client("search", "operator") as operator, old.client("search", "supervisor") as supervisor:
        paths = operator.get("/openapi.json").json()["paths"]
        needs_approval = any(path.endswith("/disclosure-approvals") for path in paths)
        for number, (_, probe) in enumerate(faces.mated_pairs()):
            answer = post_search(operator, probe.path.read_bytes(), case_reference=f"NC/2026/{number:04d}")
            if answer.status_code != 200:
                continue  # a probe with several faces or none is no search to replay
            place = f"/v1/searches/{answer.json()['search_id']}"
            query = {"reason": "CPIA"}
            if needs_approval:
                wanted = {"recipient": "Northshire Crown Court", "reason": "CPIA"}
                query["approval"] = supervisor.post(f"{place}/disclosure-approvals", json=wanted).json()["approval_id"]
            bundle = operator.get(f"{place}/disclosure", params=query)
            bundle.raise_for_status()
            made.append(into / f"{number:04d}.json")
            made[-1].write_bytes(bundle.content)
            if len(made) == searches:
                return made
    raise RuntimeError(f"only {len(made)} probes were answered")


def upgrade(old: Version, new: Version, root: Path) -> Callable[[str], None]:
    """Steps 1 to 4 of docs/operations/upgrade.md; says what was done."""

    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    if old.knows("backup"):
        old.run("backup", "--data", str(old.data), "--to", str(root / "backup"), "--keys-to", str(root / "keys"))
        say("1. backed up")
    old.stop()
    say("2. stopped")
    if not (root / "backup").exists():
        shutil.copytree(old.data, root / "backup", symlinks=True)
        say(f"1. no `{_BACKUP}` in the old version: its folder is copied while it is stopped")
    new.run("models", "fetch")
    say("3. new sources, locks alike; networks fetched")
    new.start()
    say("4. started")
    return say


def look(new: Version) -> str:
    """Step 5: status, reconciliation, the whole audit log; then the gallery is built anew."""
    new.run("status", "--data", str(new.data))
    asked = ["--token", str(new.token("administrator")), "--url", new.url("ingest")]
    new.run("gallery", "reconcile", *asked)
    verified = new.run("audit", "verify", str(new.data)).stdout
    rebuilt = new.run("gallery", "rebuild", *asked).stdout
    return f"{verified}\n{rebuilt}"


def replay(new: Version, bundles: list[Path]) -> Counter[str]:
    """Verify each bundle and replay it by command; what was said, by how often. Prints what differs."""
    token, url = str(new.token("operator")), new.url("search")
    ledger = DataFolder(new.data).database_url("ingest")

    def one(bundle: Path) -> tuple[str, str]:
        report = verify_bundle(bundle, witness=new.data / "audit-witness", ledger=ledger)  # raises where one fails
        told = new.run(
            "disclosure",
            "replay",
            str(bundle),
            "--reason",
            REASON,
            "--token",
            token,
            "--url",
            url,
            codes=frozenset({0, 1, 2}),
        )
        if told.returncode:
            print(bundle.name, told.stdout, told.stderr)
        verdict = (told.stdout or told.stderr).splitlines()
        return f"verified, ledger {report.outcomes[11]}", (verdict[0] if verdict else "nothing said")

    said: Counter[str] = Counter()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for outcome in pool.map(one, bundles):
            said.update(outcome)
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--to", default="", help="the newer version's commit; the working tree when left out")
    parser.add_argument("--searches", type=int, default=100)
    parser.add_argument("--more", type=int, default=100, help="people who are enrolled and not searched for")
    parser.add_argument("--keep", action="store_true", help="leave the folder for a look")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the platform does not outlive it
    faces = DevelopmentFaces.load(shared_data() / "faces")
    root = Path(tempfile.mkdtemp(prefix="likeness-upgrade-"))
    cache, data = root / "cache", root / "data"
    # The old version prepares networks in a folder of its own, from the same packages.
    known = Path(os.environ.get("LIKENESS_CACHE", Path.home() / ".cache" / "likeness")) / "models" / "sources"
    if known.is_dir():
        shutil.copytree(known, cache / "models" / "sources")
    old = Version(take_out(chosen.commit, root / "old"), data, cache)
    new = Version(take_out(chosen.to, root / "new") if chosen.to else REPOSITORY, data, cache)
    said: Counter[str] = Counter()
    bundles: list[Path] = []
    try:
        old.run("models", "fetch")
        old.start()
        states = Counter(enrol_faces(old, faces, chosen.searches, chosen.more).values())
        bundles = search_and_disclose(old, faces, chosen.searches, root / "bundles")
        print(f"old version: {dict(states)}, {len(bundles)} searches disclosed", flush=True)
        say = upgrade(old, new, root)
        say(look(new))
        said = replay(new, bundles)
        say(f"{len(bundles)} bundles: {dict(said)}")
    finally:
        for version in (new, old):
            version.run("down", "--data", str(data), codes=frozenset({0, 1}))
        if not chosen.keep:
            shutil.rmtree(root)
        else:
            print(f"kept in {root}")
    return int(sum(count for text, count in said.items() if text.startswith("The same")) != len(bundles))


if __name__ == "__main__":
    sys.exit(main())
