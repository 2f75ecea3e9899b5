"""`python -m services.shared.migrating SERVICE`: bring a service's schema to the newest version, and no more.

Services migrate by themselves when they start, where their database role may. Where it may not, because it can only
add and read (the audit log), this runs before them as the role that owns the tables, and grants them what they need.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import sqlalchemy as sa

from services.shared.database import create_engine, migrate
from services.shared.settings import DatabaseSettings

_SERVICES = Path(__file__).parent.parent
_ROLE = re.compile(r"[a-z_][a-z0-9_]{0,62}")
# The one table that is written over: it is how the service finds out whether the store can be written.
_MAY_CHANGE = "heartbeat"


def main() -> int:
    arguments = _arguments()
    url = os.environ[f"LIKENESS_{arguments.service.upper()}__DATABASE__URL"]
    engine = create_engine(DatabaseSettings(url=url))
    migrate(engine, _SERVICES / arguments.service / "migrations")
    if arguments.grant_append_only_to:
        grant_append_only(engine, arguments.grant_append_only_to)
    engine.dispose()
    return 0


def grant_append_only(engine: sa.Engine, role: str) -> None:
    """Let a PostgreSQL role read and insert, and neither change nor remove. Raises ValueError for an odd name."""
    if not _ROLE.fullmatch(role):
        raise ValueError(f"{role!r} is no name for a role")
    with engine.begin() as connection:
        connection.execute(sa.text(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}"))
        connection.execute(sa.text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
        connection.execute(sa.text(f"GRANT USAGE ON SCHEMA public TO {role}"))
        connection.execute(sa.text(f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {role}"))
        if sa.inspect(connection).has_table(_MAY_CHANGE):
            connection.execute(sa.text(f"GRANT UPDATE ON {_MAY_CHANGE} TO {role}"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Migrate one service's schema.")
    parser.add_argument("service", choices=sorted(path.parent.name for path in _SERVICES.glob("*/migrations")))
    parser.add_argument("--grant-append-only-to", metavar="ROLE", default="")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
