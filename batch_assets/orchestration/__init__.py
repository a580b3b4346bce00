"""Dagster: assets, checks, job, schedule and sensor. Thin: the work is done by the other packages."""
