"""Slices of any table: how the IO manager reads and writes them. Knows nothing of items and hours."""
