"""The web API beside the batch: it registers items and shows what became of them. No Dagster in here."""
