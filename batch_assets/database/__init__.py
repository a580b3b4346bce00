"""SQL: where the database is, its tables, and reading and writing slices of them. No Dagster in here."""
