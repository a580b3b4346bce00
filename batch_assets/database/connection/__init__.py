"""Connections to a server or a file, what a statement looks like on each, and how fast they write."""
