"""What somebody must hear of: each incident once when it is there, and once when it is over. No Dagster in here."""
