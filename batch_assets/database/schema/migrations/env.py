"""What Alembic runs; the connection comes from `batch_assets.database.schema`."""

from alembic import context

from batch_assets.database.schema.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
