"""The sources of a version that is not there yet: these, and a migration of the ledger that they do not know."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from tests.support.repository import ROOT

_VERSIONS = Path("services/ingest/migrations/versions")
_MIGRATION = '''"""A column and a table that the version before does not know."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("enrolments", sa.Column("next_thing", sa.Text, nullable=True))
    op.create_table("next_things", sa.Column("id", sa.String(36), primary_key=True))
'''


@dataclass(frozen=True, slots=True)
class NextVersion:
    """Where its sources are, and the ledger's schema in this version and in the next."""

    sources: Path
    before: str
    revision: str

    @classmethod
    def write(cls, folder: Path) -> NextVersion:
        shutil.copytree(ROOT / "services", folder / "services", ignore=shutil.ignore_patterns("__pycache__"))
        before = max(path.name[:4] for path in (ROOT / _VERSIONS).glob("[0-9]*.py"))
        revision = f"{int(before) + 1:04}"
        migration = folder / _VERSIONS / f"{revision}_next.py"
        migration.write_text(_MIGRATION.format(revision=revision, before=before), "utf-8")
        return cls(folder, before, revision)

    def schema(self, url: str) -> str:
        """Which one a ledger has."""
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return str(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one())

    def take_back(self, url: str) -> None:
        """So that this version opens the ledger again; no version does that by itself."""
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE IF EXISTS next_things"))
            connection.execute(sa.text("ALTER TABLE enrolments DROP COLUMN IF EXISTS next_thing"))
            connection.execute(sa.text("UPDATE alembic_version SET version_num = :before"), {"before": self.before})
