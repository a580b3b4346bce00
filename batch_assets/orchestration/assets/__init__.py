"""The assets, one in a module."""
