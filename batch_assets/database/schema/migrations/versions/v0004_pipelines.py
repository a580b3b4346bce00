"""Our own tables know the pipeline that a row belongs to: there may be several.

Rows that are there belong to the pipeline of the environment, and so do those that a run of the version before goes on
to write: the column has its name as default. Every step looks first whether it has been done, as in 0001; each is one
statement, which a server does wholly or not at all.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# What is written into a key must be compared as it is, and short.
NAME = sa.String(64).with_variant(mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
KEYS = {
    "failed_items": "item_id",
    "run_summary": "hour",
    "hour_locks": "hour",
    "hour_requests": "hour",
    "registrations": "idempotency_key",
}


def upgrade() -> None:
    """Adds the column where it is not there, as the first one of the primary key."""
    inspector = sa.inspect(op.get_bind())
    for table, key in KEYS.items():
        if inspector.get_pk_constraint(table)["constrained_columns"] == ["pipeline", key]:
            continue
        if op.get_bind().dialect.name == "sqlite":
            _make_anew(table, key)
        else:
            op.execute(
                f"ALTER TABLE {table} ADD COLUMN pipeline VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL "
                f"DEFAULT 'items' FIRST, DROP PRIMARY KEY, ADD PRIMARY KEY (pipeline, {key})"
            )


def _make_anew(table: str, key: str) -> None:
    """Makes the table anew with its rows, all in the transaction of the migration: SQLite cannot change a key.

    Not by renaming, which SQLite refuses where somebody has a view of the table.
    """
    connection, kept = op.get_bind(), f"{table}_kept"
    old = sa.Table(table, sa.MetaData(), autoload_with=connection)
    names = ", ".join(column.name for column in old.columns)
    # Also what others have added.
    made_for_it = sa.text(
        "SELECT sql FROM sqlite_master WHERE tbl_name = :table AND type IN ('index', 'trigger') AND sql IS NOT NULL"
    )
    statements = connection.execute(made_for_it, {"table": table}).scalars().all()
    op.execute(f"CREATE TEMPORARY TABLE {kept} AS SELECT * FROM {table}")
    op.drop_table(table)
    op.create_table(
        table,
        sa.Column("pipeline", NAME, primary_key=True, server_default="items"),
        *(
            sa.Column(
                column.name,
                column.type,
                primary_key=column.name == key,
                nullable=column.nullable,
                server_default=column.server_default,
            )
            for column in old.columns
        ),
    )
    op.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM {kept}")
    op.execute(f"DROP TABLE {kept}")
    for statement in statements:
        connection.exec_driver_sql(statement)
