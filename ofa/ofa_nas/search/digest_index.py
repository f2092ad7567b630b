"""A hash table from digests to numbers that finds and adds many at a time, with open addressing."""

import numpy as np

from ofa_nas.spaces.space import IntArray

UNKNOWN = -1
_FIRST_BITS = 13
_SPARSE = 4  # places per digest at least, so that few digests share a place
_EMPTY = 0  # digest 0 is stored as 1


class DigestIndex:
    """Numbers of uint64 digests. The digests are random, so that their last bits are their first place."""

    def __init__(self) -> None:
        self._count = 0
        self._keys: IntArray = np.zeros(1 << _FIRST_BITS, dtype=np.uint64)
        self._numbers: IntArray = np.zeros(1 << _FIRST_BITS, dtype=np.int64)

    def find(self, digests: IntArray) -> IntArray:
        """Return (N,) the numbers of the digests, UNKNOWN for those without."""
        places, found = self._places(np.maximum(digests, 1))
        return np.where(found, self._numbers[places], UNKNOWN)

    def put(self, digests: IntArray, numbers: IntArray) -> None:
        """Set the numbers of different digests, known or new."""
        self._grow(len(digests))
        digests = np.maximum(digests, 1)
        left = np.arange(len(digests))
        while len(left):
            places, found = self._places(digests[left])
            self._count += len(left) - int(found.sum())
            self._keys[places] = digests[left]
            own = self._keys[places] == digests[left]  # two new digests that met at one place: one of them stays
            self._numbers[places[own]] = numbers[left[own]]
            left = left[~own]
            self._count -= len(left)

    def _places(self, digests: IntArray) -> tuple[IntArray, IntArray]:
        """Return (N,) the places of the digests, or where they belong, and whether they are there."""
        last = np.uint64(len(self._keys) - 1)
        places = (digests & last).astype(np.int64)
        keys = self._keys[places]
        found = keys == digests
        searching = np.flatnonzero(~found & (keys != _EMPTY))
        while len(searching):
            places[searching] = (places[searching] + 1) & int(last)
            keys = self._keys[places[searching]]
            found[searching] = keys == digests[searching]
            searching = searching[~found[searching] & (keys != _EMPTY)]
        return places, found

    def _grow(self, more: int) -> None:
        size = len(self._keys)
        if _SPARSE * (self._count + more) <= size:
            return
        while size < 2 * _SPARSE * (self._count + more):
            size *= 2
        known = np.flatnonzero(self._keys != _EMPTY)
        digests, numbers = self._keys[known], self._numbers[known]
        self._count, self._keys = 0, np.zeros(size, dtype=np.uint64)
        self._numbers = np.zeros(size, dtype=np.int64)
        self.put(digests, numbers)
