"""What is done about an hour in which something is left, as a function of what is known of it."""
