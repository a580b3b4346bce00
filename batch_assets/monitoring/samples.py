"""Picks the same items of an hour each time, each as likely as any other."""

import numpy as np
from numpy.typing import NDArray


def lowest_hashed(keys: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Returns those of some whole numbers that have the lowest of hashes, in no order; all if they are no more.

    Neither a rerun nor the order makes a difference.

    Args:
        keys: The numbers.
        most: How many are returned at the most.
    """
    if len(keys) <= most:
        return keys
    return keys[np.argpartition(_hashes(keys), most)[:most]]


def _hashes(keys: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Mixes the bits of whole numbers so that near ones come far apart, as SplitMix64 does."""
    mixed = keys.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
