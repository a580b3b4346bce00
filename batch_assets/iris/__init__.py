"""The model that the package comes with, and the demonstration that uses it."""
