"""Tests of batch_assets: on SQLite and on real servers, from single functions to the command line."""
