"""Three pipelines side by side."""
