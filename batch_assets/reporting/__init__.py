"""What an hour's numbers are, and how they are shown. No Dagster in here."""
