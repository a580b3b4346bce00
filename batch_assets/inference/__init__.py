"""From the values of an item to its class probabilities: check, score, train. No Dagster, no SQL in here."""
