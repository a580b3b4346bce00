"""Alembic's migrations of our tables."""

# The service and Dagster may keep a table `alembic_version` of their own in the same database.
VERSION_TABLE = "batch_assets_alembic_version"
