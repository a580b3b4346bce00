"""What is recorded of items and hours: outcomes, failures, locks, requests and summaries."""
