"""The witness as a folder: another disk, a share of another host, a mount that only grows."""

from __future__ import annotations

from pathlib import Path

from services.audit.ports import PublishedKey
from services.audit.signing import write_new_file
from services.audit.verification import Checkpoint, parse_checkpoint
from services.shared.errors import DependencyUnavailable, IntegrityError


class FolderWitness:
    """Witness over `keys/<key id>.pem` and `checkpoints/<day>/<tree size>-<root>.json`, one file each, never replaced.

    The root is in the name, so that two heads of one size stand side by side as evidence instead of hiding each other.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def newest(self) -> Checkpoint | None:
        try:
            paths = list(self._folder.glob("checkpoints/*/*.json"))
            if not paths:
                return None
            return parse_checkpoint(max(paths, key=lambda path: path.name).read_bytes())
        except OSError as error:
            raise self._unavailable(error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"The newest checkpoint of the witness {self._folder} cannot be read: {error}",
                advice="Find out what changed it; the witness is only ever added to.",
            ) from error

    def publish_key(self, key: PublishedKey) -> None:
        self._keep(self._folder / "keys" / f"{key.key_id}.pem", key.public_key.encode())

    def keep(self, checkpoint: Checkpoint) -> None:
        # Padded, so that names sort by size.
        name = f"{checkpoint.tree_size:016d}-{checkpoint.root_hash.hex()[:16]}.json"
        self._keep(self._folder / "checkpoints" / checkpoint.created_at[:10] / name, checkpoint.document() + b"\n")

    def _keep(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_new_file(path, content, 0o444)
        except FileExistsError:
            return
        except OSError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: OSError) -> DependencyUnavailable:
        return DependencyUnavailable(
            f"The audit witness {self._folder} cannot be used: {error}",
            advice="Operators: mount it again; the checkpoints that it lacks are copied by themselves.",
        )
