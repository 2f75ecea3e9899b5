"""Makes `services/rpc/v1` from `proto/`; with `--check` fails when the committed code differs."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GENERATED = Path("services/rpc/v1")


def generate(target: Path) -> None:
    """Run protoc over every proto file; the Python path mirrors the proto path below `target`."""
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "proto").rglob("*.proto"))
    outputs = [f"--{kind}={target}" for kind in ("python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "--proto_path=proto", *outputs, *protos],
        cwd=ROOT,
        # protoc finds the mypy plugins beside this interpreter, whether or not its environment is activated.
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"},
        check=True,
    )
    (target / GENERATED / "__init__.py").write_text("")


def differing(made: Path, committed: Path) -> list[str]:
    """Names of files that are missing, extra or different."""
    fresh = {path.name: path.read_bytes() for path in made.glob("*.py*")}
    present = {path.name: path.read_bytes() for path in committed.glob("*.py*")}
    return sorted(name for name in fresh.keys() | present.keys() if fresh.get(name) != present.get(name))


def main() -> int:
    if "--check" not in sys.argv:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        changed = differing(Path(folder) / GENERATED, ROOT / GENERATED)
    if changed:
        print(f"generated gRPC code is stale: {', '.join(changed)}; run `make proto` and commit")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
