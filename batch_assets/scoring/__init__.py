"""Scoring an hour: which of its items, under which lock, batch by batch."""
