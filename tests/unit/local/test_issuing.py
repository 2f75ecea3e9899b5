"""Certificates for containers: each service finds its own, and the loop ends when it is asked to."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from cryptography import x509

from services.local.deployment import SERVICES
from services.local.issuing import drop, follow, issue
from services.rpc.mtls import Certificates, host_name
from services.shared.clock import SystemClock
from services.shared.settings import TlsSettings
from tests.support.waiting import wait_until


def certificates(tls: Path, service: str) -> Certificates:
    folder = tls / service
    return Certificates(
        TlsSettings(ca_path=folder / "ca.crt", cert_path=folder / "tls.crt", key_path=folder / "tls.key")
    )


def test_each_service_has_a_usable_certificate_of_its_name(tmp_path: Path) -> None:
    issue(tmp_path / "authority", tmp_path / "tls", SystemClock())
    for service in SERVICES:
        kept = certificates(tmp_path / "tls", service)
        assert not kept.has_changed()
        certificate = x509.load_pem_x509_certificate((tmp_path / "tls" / service / "tls.crt").read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [host_name(service)]
        issue(tmp_path / "authority", tmp_path / "tls", SystemClock())
        assert kept.has_changed()


def test_an_authority_that_follows_is_known_to_everybody_before_it_signs(tmp_path: Path) -> None:
    authority, tls = tmp_path / "authority", tmp_path / "tls"
    issue(authority, tls, SystemClock())
    before = {service: _files(tls, service) for service in SERVICES}
    follow(authority, tls, SystemClock(), looked_at_s=0.0)
    for service in SERVICES:
        believed, certificate, _ = _files(tls, service)
        assert len(believed) == 2
        assert believed[1] == before[service][0][0], "the former one is still believed"
        certificate.verify_directly_issued_by(believed[0])
        certificates(tls, service)
    issue(authority, tls, SystemClock())  # the loop beside it goes on with the new one
    drop(authority, tls, SystemClock())
    for service in SERVICES:
        [alone], certificate, _ = _files(tls, service)
        certificate.verify_directly_issued_by(alone)
        assert alone != before[service][0][0]


def _files(tls: Path, service: str) -> tuple[list[x509.Certificate], x509.Certificate, bytes]:
    folder = tls / service
    return (
        x509.load_pem_x509_certificates((folder / "ca.crt").read_bytes()),
        x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes()),
        (folder / "tls.key").read_bytes(),
    )


def test_it_runs_until_it_is_stopped(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "services.local.issuing", str(tmp_path / "authority"), str(tmp_path / "tls")]
    )
    try:
        last = tmp_path / "tls" / SERVICES[-1] / "tls.crt"
        wait_until(lambda: last.exists() or process.poll() is not None, 120, "the certificates")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
