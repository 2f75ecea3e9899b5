"""What a backup holds, in two parts that must not lie together: the record, and the keys that open it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from services.shared.errors import ConfigurationError, IntegrityError

FORMAT = "likeness-backup/1"
MANIFEST = "manifest.json"
_CHUNK = 1024 * 1024

EVENTS = "events.sqlite"
# Topics that may hold images, with their dead letters: the feed's, and those that an owner named otherwise.
IMAGE_EVENTS, OUR_EVENTS = "%custody-image-received%", "likeness.%"

# In the order in which they are taken. The ledger comes before the images that it names, which were stored before its
# row was written; the log after everything that it tells of; so what is taken while the platform works fits together.
DATABASES = (
    "ingest/ingest.sqlite",
    "search/search.sqlite",
    "review/review.sqlite",
    EVENTS,
    "audit/audit.sqlite",
)
# Files that are written once, under a digest or an id of their own, or replaced as a whole.
FOLDERS = ("images", "probes", "review/pictures", "audit-witness")
FILES = ("watchlists.toml",)
# Whoever has these and the record can read every image. Older copies bring erased people back, so none is kept.
# Of enrolled images, of the probes that searches sealed, of the pictures of requests.
KEY_FOLDERS = ("image-keys", "probe-keys", "request-keys")
KEY_DATABASES = tuple(f"{folder}/keys.sqlite" for folder in KEY_FOLDERS)
MASTER_KEYS = tuple(f"{folder}/master.key" for folder in KEY_FOLDERS)
KEY_FILES = (
    *MASTER_KEYS,
    "ingest/certificate-key.pem",
    "audit/signing-key.pem",
    "audit/signing-key.pem.endorsement.json",
)
# Copies of signed checkpoints. Those that are there are never replaced: they bear witness against a backup too.
WITNESS = "audit-witness"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a part consists of. `files` maps paths to SHA-256; `backup_id` is the same in both parts."""

    part: str
    backup_id: str
    taken_at: str
    files: Mapping[str, str]

    def write(self, folder: Path) -> None:
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True)
        (folder / MANIFEST).write_text(text, "utf-8")

    @classmethod
    def read(cls, folder: Path, part: str) -> Manifest:
        """Raises ConfigurationError for a folder that holds no such part."""
        try:
            found: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
            is_it = found.pop("format") == FORMAT and found["part"] == part
            manifest = cls(**found)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(
                f"{folder} holds no backup of the {part}: {error}.",
                advice="Give the folder that `likeness backup` wrote; one that was broken off has no manifest.",
            ) from error
        if not is_it:
            raise ConfigurationError(
                f"{folder} is another part, or of another format.", advice=f"Give the folder with the {part}."
            )
        return manifest

    def verify(self, folder: Path) -> None:
        """Every file is there, as it was taken, and nothing else. Raises IntegrityError."""
        there = {path.relative_to(folder).as_posix() for path in files_of(folder)} - {MANIFEST}
        if missing := sorted(set(self.files) - there):
            raise IntegrityError(f"The backup lacks {missing[0]} and {len(missing) - 1} more.", advice=_OTHER)
        if foreign := sorted(there - set(self.files)):
            raise IntegrityError(f"{foreign[0]} does not belong to the backup.", advice=_OTHER)
        for name, sha256 in self.files.items():
            if digest_of(folder / name) != sha256:
                raise IntegrityError(f"{name} in the backup is not what was taken.", advice=_OTHER)


_OTHER = "Use another backup; keep this one for whoever investigates."


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def digest_of(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()
