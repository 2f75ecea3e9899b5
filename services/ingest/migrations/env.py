"""Runs the migrations of ingest on the engine that the service hands over."""

from alembic import context

from services.ingest.adapters.schema import metadata

engine = context.config.attributes["engine"]

with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
