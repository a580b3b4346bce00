"""SQL: connections, the tables, slices of tables, and the records of hours. No Dagster in here."""
