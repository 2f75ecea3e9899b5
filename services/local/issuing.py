"""An authority beside containers: `python -m services.local.issuing AUTHORITY TLS`.

Makes certificates for every service in a folder of its own (`TLS/<service>/ca.crt`, `tls.crt`, `tls.key`), so that each
container is given its own and no other, and renews them at half-time until it is stopped. AUTHORITY holds the key that
signs and belongs to nobody else.

`… AUTHORITY TLS follow` puts another authority in its place, beside the running loop, and ends; `… drop` then believes
that one alone. docs/operations/rotate-keys.md says when.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

from services.local.certificates import RENEW_AFTER, LocalAuthority
from services.local.deployment import SERVICES, CertificateFolder
from services.local.issuer import write_private
from services.shared.clock import Clock, SystemClock

# A service looks at its files when a connection is made to it and, before a call, when it has not for a second.
LOOKED_AT_S = 3.0


def issue(authority: Path, tls: Path, clock: Clock) -> None:
    """New certificates for every service. Raises ConfigurationError when the authority cannot be read."""
    LocalAuthority.open(CertificateFolder(authority), clock).renew(SERVICES)
    _hand_out(authority, tls)


def follow(authority: Path, tls: Path, clock: Clock, looked_at_s: float = LOOKED_AT_S) -> None:
    """Another authority, and certificates of it; the former is still believed."""

    def known_everywhere() -> None:
        _tell_authorities(authority, tls)
        time.sleep(looked_at_s)

    LocalAuthority.open(CertificateFolder(authority), clock).follow(known_everywhere).renew(SERVICES)
    _hand_out(authority, tls)


def drop(authority: Path, tls: Path, clock: Clock) -> None:
    """From now on nobody believes a former authority."""
    LocalAuthority.open(CertificateFolder(authority), clock).drop_others()
    _tell_authorities(authority, tls)


def _tell_authorities(authority: Path, tls: Path) -> None:
    for service in SERVICES:
        folder = tls / service
        folder.mkdir(parents=True, exist_ok=True)
        write_private(folder / "ca.crt", CertificateFolder(authority).authority.read_bytes())


def _hand_out(authority: Path, tls: Path) -> None:
    made = CertificateFolder(authority)
    # Everybody believes an authority before anybody shows a certificate of it.
    _tell_authorities(authority, tls)
    for service in SERVICES:
        # The key before its certificate: readers take a pair only when it fits.
        write_private(tls / service / "tls.key", made.key(service).read_bytes())
        write_private(tls / service / "tls.crt", made.certificate(service).read_bytes())


def main() -> int:
    authority, tls = (Path(argument) for argument in sys.argv[1:3])
    if sys.argv[3:]:
        {"follow": follow, "drop": drop}[sys.argv[3]](authority, tls, SystemClock())
        return 0
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopped.set())
    issue(authority, tls, SystemClock())
    while not stopped.wait(RENEW_AFTER.total_seconds()):
        issue(authority, tls, SystemClock())
    return 0


if __name__ == "__main__":
    sys.exit(main())
