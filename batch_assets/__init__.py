"""Hourly batch inference on Dagster and MySQL."""
