"""The table of acts whose outcome is not in the audit log yet. Alembic makes it."""

from __future__ import annotations

from services.ingest.adapters.schema import metadata
from services.rpc.sql_open_acts import open_acts_table

open_acts = open_acts_table("ingest_open_acts", metadata)
