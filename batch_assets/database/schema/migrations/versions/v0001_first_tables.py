"""items, failed_items and run_summary.

MySQL cannot undo DDL: a migration that was interrupted is run again, so every step looks first whether it has
been done. The columns are written out here, since `tables.py` moves on and a migration must not.
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JSON_TEXT = sa.Text().with_variant(mysql.JSON(), "mysql", "mariadb")
IDENTIFIER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# Dagster, once imported, has SQLAlchemy's own types written with fractions of a second on MySQL.
TIME = sa.DateTime().with_variant(mysql.DATETIME(), "mysql", "mariadb")
TIMESTAMP = sa.TIMESTAMP().with_variant(mysql.TIMESTAMP(), "mysql", "mariadb")
NOW = sa.text("CURRENT_TIMESTAMP")
# Whatever the defaults of the server and the database are: every text, and transactions.
CHARSET, ENGINE = "utf8mb4", "InnoDB"


def upgrade() -> None:
    """Creates the tables that are not there."""
    there = set(sa.inspect(op.get_bind()).get_table_names())
    # A project may declare other tables alone.
    if "items" not in there and context.config.attributes["with_items"]:
        _create_items()
    if "failed_items" not in there:
        _create_failed_items()
    if "run_summary" not in there:
        _create_run_summary()
    # An index is a statement of its own, before which the migration can have been interrupted.
    if not any(index["column_names"] == ["hour"] for index in sa.inspect(op.get_bind()).get_indexes("failed_items")):
        op.create_index("ix_failed_items_hour", "failed_items", ["hour"])


def _create_items() -> None:
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "items",
        sa.Column("id", IDENTIFIER, primary_key=True, autoincrement=True),
        sa.Column("values", JSON_TEXT, nullable=False),
        sa.Column("prediction", JSON_TEXT, nullable=True),
        sa.Column("created_datetime", TIMESTAMP, nullable=False, server_default=NOW),
        sa.Column(
            "updated_datetime",
            TIMESTAMP,
            nullable=False,
            server_default=NOW if on_sqlite else sa.text("CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP"),
        ),
        sa.Index("ix_items_created_datetime", "created_datetime"),
        sqlite_autoincrement=True,
        mysql_charset=CHARSET,
        mysql_engine=ENGINE,
    )
    if on_sqlite:  # which has no ON UPDATE
        op.execute(
            "CREATE TRIGGER items_updated_datetime AFTER UPDATE ON items "
            "WHEN NEW.updated_datetime = OLD.updated_datetime "
            "BEGIN UPDATE items SET updated_datetime = CURRENT_TIMESTAMP WHERE id = NEW.id; END"
        )


def _create_failed_items() -> None:
    op.create_table(
        "failed_items",
        sa.Column("item_id", IDENTIFIER, primary_key=True, autoincrement=False),
        sa.Column("hour", TIME, nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("first_failed_at", TIME, nullable=False),
        sa.Column("last_failed_at", TIME, nullable=False),
        sa.Column("model_version", sa.String(64), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        mysql_charset=CHARSET,
        mysql_engine=ENGINE,
    )


def _create_run_summary() -> None:
    op.create_table(
        "run_summary",
        sa.Column("hour", TIME, primary_key=True),
        sa.Column("items", sa.BigInteger, nullable=False),
        sa.Column("predicted", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("pending", sa.BigInteger, nullable=False),
        sa.Column("label_counts", JSON_TEXT, nullable=False),
        sa.Column("model_version", sa.String(64)),
        sa.Column("retry", sa.String(16)),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME, nullable=False),
        sa.Column("scored", sa.BigInteger),
        sa.Column("rows_per_second", sa.Double),
        sa.Column("read_rows_per_second", sa.Double),
        sa.Column("check_rows_per_second", sa.Double),
        sa.Column("score_rows_per_second", sa.Double),
        sa.Column("write_rows_per_second", sa.Double),
        mysql_charset=CHARSET,
        mysql_engine=ENGINE,
    )
