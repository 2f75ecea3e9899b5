"""Alembic environment: runs with the engine that `services.shared.database.migrate` hands over."""

from alembic import context
from sqlalchemy import Engine

engine: Engine = context.config.attributes["engine"]
with engine.connect() as connection:
    # A name of its own, so that services may share one PostgreSQL database.
    context.configure(connection=connection, version_table="review_schema_version", transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
