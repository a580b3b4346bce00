"""Whether the items and the answers of an hour are like those that the model was made for."""
