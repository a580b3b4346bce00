"""What the features and the answers are to look like, and what they looked like in each hour.

Every step looks first whether it has been done, as in 0001.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TIME = sa.DateTime().with_variant(mysql.DATETIME(), "mysql", "mariadb")
LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
# What is written into a key must be compared as it is, and short.
NAME = sa.String(64).with_variant(mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
CHARSET, ENGINE = "utf8mb4", "InnoDB"


def upgrade() -> None:
    """Creates the tables that are not there."""
    there = set(sa.inspect(op.get_bind()).get_table_names())
    if "baselines" not in there:
        op.create_table(
            "baselines",
            sa.Column("pipeline", NAME, primary_key=True),
            sa.Column("model_version", NAME, primary_key=True),
            sa.Column("made_at", TIME, nullable=False),
            sa.Column("made_from", sa.Text, nullable=False),
            sa.Column("items", sa.BigInteger, nullable=False),
            sa.Column("sketches", LONG_TEXT, nullable=False),
            mysql_charset=CHARSET,
            mysql_engine=ENGINE,
        )
    if "hour_profiles" not in there:
        op.create_table(
            "hour_profiles",
            sa.Column("pipeline", NAME, primary_key=True),
            sa.Column("hour", TIME, primary_key=True),
            sa.Column("model_version", NAME, nullable=False),
            sa.Column("baseline_made_at", TIME),
            sa.Column("sampled", sa.BigInteger, nullable=False),
            sa.Column("alarms", sa.Integer, nullable=False),
            sa.Column("judgements", LONG_TEXT, nullable=False),
            sa.Column("measures", LONG_TEXT, nullable=False),
            sa.Column("label_counts", sa.Text, nullable=False),
            sa.Column("sketches", LONG_TEXT, nullable=False),
            mysql_charset=CHARSET,
            mysql_engine=ENGINE,
        )
