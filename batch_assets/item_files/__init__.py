"""Files of items."""
