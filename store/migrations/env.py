"""Runs the revisions: on the connection that `store.schema` hands over, or as SQL text where it hands over none."""

from __future__ import annotations

from alembic import context

from store.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    # The caller runs the text in one transaction of its own.
    context.configure(
        dialect_name="postgresql",
        target_metadata=metadata,
        output_buffer=context.config.attributes["output"],
        transactional_ddl=False,
        dialect_opts={"paramstyle": "named"},
    )
    context.run_migrations()
else:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=connection.dialect.name == "sqlite")
    with context.begin_transaction():
        context.run_migrations()
