"""Downloads one source distribution with pip's own session and finder, and stops there.

Run as a script by `packages.py`: name, version, sha256, folder. `pip download` has no option that keeps it from running
an sdist's build backend for metadata, so this takes the same first steps (configuration, index, credentials, proxy,
hash check) and leaves out the rest. pip's internals carry no promise, hence the version of pip is locked and a test
fetches a real sdist.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import cast

from pip._internal.commands import create_command
from pip._internal.commands.download import DownloadCommand
from pip._internal.network.download import Downloader
from pip._internal.operations.prepare import get_file_url, get_http_url
from pip._internal.utils.hashes import Hashes
from pip._internal.utils.temp_dir import global_tempdir_manager, tempdir_registry
from pip._vendor.packaging.specifiers import SpecifierSet


def download(name: str, version: str, sha256: str, folder: Path) -> None:
    """Put the sdist with that hash into `folder`; SystemExit with a reason when the index does not offer it."""
    command = cast(DownloadCommand, create_command("download"))
    options, _ = command.parse_args(["--quiet", "--no-input", "--disable-pip-version-check", "--no-binary=:all:"])
    hashes = Hashes({"sha256": [sha256]})
    with command.main_context():
        command.enter_context(tempdir_registry())
        command.enter_context(global_tempdir_manager())
        session = command.get_default_session(options)
        finder = command._build_package_finder(options, session, ignore_requires_python=True)
        best = finder.find_best_candidate(name, SpecifierSet(f"=={version}"), hashes).best_candidate
        if best is None:
            raise SystemExit(f"the index offers no sdist of {name} {version}")
        if best.link.is_file:
            fetched = get_file_url(best.link, hashes=hashes)
        else:
            fetched = get_http_url(best.link, Downloader(session, "off"), hashes=hashes)
        shutil.copyfile(fetched.path, folder / best.link.filename)


if __name__ == "__main__":
    _, package, release, digest, destination = sys.argv
    download(package, release, digest, Path(destination))
