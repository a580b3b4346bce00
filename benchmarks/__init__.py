"""What the pipeline costs, measured beside something to compare it with."""
