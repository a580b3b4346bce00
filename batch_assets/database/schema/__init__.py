"""The tables of the pipeline, and how they are made and changed."""
