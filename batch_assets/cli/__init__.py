"""The command line `batch-assets`."""
