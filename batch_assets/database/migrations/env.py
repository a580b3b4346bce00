"""What Alembic runs; the connection comes from `batch_assets.database.schema`."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    # The service and Dagster may keep a table `alembic_version` of their own in the same database.
    version_table="batch_assets_alembic_version",
)
with context.begin_transaction():
    context.run_migrations()
