"""Settings as typed objects, and the environment that they are read from."""
