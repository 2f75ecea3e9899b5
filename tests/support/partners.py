"""Two forces' platforms that are partners of each other: keys, certificates and files as administrators make them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.local.certificates import LocalAuthority
from services.local.deployment import HOST, CertificateFolder
from services.local.ports import reserve_ports
from services.shared.clock import SystemClock


@dataclass(frozen=True, slots=True)
class Side:
    """One force's platform as the other one knows it."""

    name: str
    force: str
    folder: Path
    port: int
    public_key: str

    @property
    def file(self) -> Path:
        return self.folder / "partners.toml"

    @property
    def certificates(self) -> CertificateFolder:
        return CertificateFolder(self.folder / "tls")

    @property
    def host_name(self) -> str:
        return f"{self.name}.likeness.internal"

    def settings(self) -> dict[str, str]:
        """For tests.support.platform.Platform."""
        return {
            "LIKENESS_SEARCH__PARTNERS__PATH": str(self.file),
            "LIKENESS_SEARCH__PARTNERS__PORT": str(self.port),
        }


def make_side(folder: Path, force: str) -> Side:
    """Keys and certificates of a platform that is named as its force, on a port that is free now."""
    folder.mkdir(parents=True)
    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "signing-key.pem").write_bytes(key.private_bytes(*pem))
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    [port] = reserve_ports(HOST, 1)
    side = Side(force, force, folder, port, base64.b64encode(raw).decode())
    LocalAuthority.open(side.certificates, SystemClock()).renew([side.name])
    return side


def introduce(
    side: Side, other: Side, *, watchlists: Sequence[str] = ("op_liberal",), timeout_s: float = 10.0, more: str = ""
) -> None:
    """Write the side's partner file: the other side is its only partner."""
    names = ", ".join(f'"{name}"' for name in watchlists)
    side.file.write_text(
        f"""
[own]
name = "{side.name}"
forces = ["{side.force}"]
signing_key = "signing-key.pem"
certificate = "tls/{side.name}.pem"
key = "tls/{side.name}-key.pem"

[[partner]]
name = "{other.name}"
address = "https://{HOST}:{other.port}"
host_name = "{other.host_name}"
ca = "{other.certificates.authority}"
token_key = "{other.public_key}"
forces = ["{other.force}"]
ask_watchlists = [{names}]
answer_watchlists = [{names}]
timeout_s = {timeout_s}
{more}
""",
        "utf-8",
    )
