"""What the pipeline is measured beside: other ways to score the same hour, each a program of its own."""
