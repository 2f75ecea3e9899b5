"""Secrets for a trial of deploy/compose.yaml: random passwords in `.env`, token keys and ready tokens beside it.

    python scripts/stack_secrets.py deploy

Nothing that is there already is changed. In earnest the force's identity provider issues tokens, and its public keys
(jwks.json) and the administrator's watchlists.toml take the place of what is made here.
"""

from __future__ import annotations

import argparse
import base64
import secrets
from pathlib import Path

from services.local.deployment import DataFolder
from services.local.supervisor import prepare_data
from services.shared.clock import SystemClock

_OWNER_ONLY = 0o600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where compose.yaml is")
    folder: Path = parser.parse_args().folder
    env = folder / ".env"
    if env.exists():
        print(f"{env} is there already and was left as it is")
    else:
        env.touch(_OWNER_ONLY)
        env.write_text(filled((folder / "env.example").read_text("utf-8")), "utf-8")
        print(f"{env} written")
    data = DataFolder(folder / "local")
    data.root.mkdir(parents=True, exist_ok=True)
    prepare_data(data, SystemClock())
    publish(data)
    print(f"tokens for a trial in {data.tokens}")


def publish(data: DataFolder) -> None:
    """What the containers read, and nothing else: their user is not this one. Run again after `likeness revoke`."""
    data.root.chmod(0o700)  # nobody else of this machine; the engine mounts what is below it
    metrics = data.root / "metrics"
    metrics.mkdir(exist_ok=True)
    if not (metrics / "token").exists():
        (metrics / "token").write_text(secrets.token_hex(32), "utf-8")
    for path, mode in ((metrics, 0o755), (metrics / "token", 0o644)):  # Prometheus is another user again
        path.chmod(mode)
    public = data.root / "public"
    public.mkdir(exist_ok=True)
    public.chmod(0o755)
    for name in ("jwks.json", "revocations.json"):
        copy = public / f".{name}.new"
        copy.write_bytes((data.tokens / name).read_bytes())
        copy.chmod(0o644)
        copy.replace(public / name)
    data.watchlists.chmod(0o644)


def filled(example: str) -> str:
    """The example with a random value wherever it has none."""
    return "".join(_line(line) for line in example.splitlines(keepends=True))


def _line(line: str) -> str:
    name, separator, value = line.rstrip("\n").partition("=")
    if line.startswith("#") or not separator or value:
        return line
    if name == "S3_KMS_KEY":
        return f"{name}=likeness:{base64.b64encode(secrets.token_bytes(32)).decode()}\n"
    return f"{name}={secrets.token_hex(16)}\n"


if __name__ == "__main__":
    main()
