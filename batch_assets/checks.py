"""What must hold of an hour that has been scored, checked on its row in `run_summary`."""
