"""The rights on the table of a declared pipeline, for the roles that `deploy/grants` makes."""

from sqlalchemy.dialects import mysql

from batch_assets.pipeline import ItemTable


def grant_statements(names: ItemTable) -> list[str]:
    """Returns what an administrator applies before the table is prepared.

    Args:
        names: The table.
    """
    quote = mysql.dialect().identifier_preparer.quote_identifier
    table, outputs = quote(names.name), [output.column for output in names.outputs]
    written = ", ".join(map(quote, outputs))
    added = ", ".join(map(quote, [*names.scored_columns, names.created]))
    corrected = ", ".join(map(quote, [*names.scored_columns, *outputs]))
    return [
        f"GRANT SELECT, INSERT, CREATE, ALTER, INDEX ON {table} TO batch_assets_migrations;",
        f"GRANT SELECT, UPDATE ({written}) ON {table} TO batch_assets_batch;",
        f"GRANT SELECT, DELETE ON {table} TO batch_assets_prune;",
        f"GRANT SELECT, INSERT ({added}), UPDATE ({corrected}) ON {table} TO batch_assets_api;",
    ]
