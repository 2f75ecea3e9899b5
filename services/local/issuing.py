"""An authority beside containers: `python -m services.local.issuing AUTHORITY TLS`.

Makes certificates for every service in a folder of its own (`TLS/<service>/ca.crt`, `tls.crt`, `tls.key`), so that each
container is given its own and no other, and renews them at half-time until it is stopped. AUTHORITY holds the key that
signs and belongs to nobody else.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from services.local.certificates import RENEW_AFTER, LocalAuthority
from services.local.deployment import SERVICES, CertificateFolder
from services.local.issuer import write_private
from services.shared.clock import Clock, SystemClock


def issue(authority: Path, tls: Path, clock: Clock) -> None:
    """New certificates for every service. Raises ConfigurationError when the authority cannot be read."""
    made = CertificateFolder(authority)
    LocalAuthority.open(made, clock).renew(SERVICES)
    for service in SERVICES:
        folder = tls / service
        folder.mkdir(parents=True, exist_ok=True)
        # The key before its certificate: readers take a pair only when it fits.
        write_private(folder / "ca.crt", made.authority.read_bytes())
        write_private(folder / "tls.key", made.key(service).read_bytes())
        write_private(folder / "tls.crt", made.certificate(service).read_bytes())


def main() -> int:
    authority, tls = (Path(argument) for argument in sys.argv[1:3])
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopped.set())
    issue(authority, tls, SystemClock())
    while not stopped.wait(RENEW_AFTER.total_seconds()):
        issue(authority, tls, SystemClock())
    return 0


if __name__ == "__main__":
    sys.exit(main())
