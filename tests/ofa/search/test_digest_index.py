"""The hash table of a search finds what was put into it."""

import numpy as np
import pytest

from ofa_nas.search.digest_index import UNKNOWN, DigestIndex


@pytest.mark.parametrize("bits", [8, 64])  # with 8 bits, most digests share their first place with others
def test_numbers_are_found_as_in_a_dict(bits):
    rng = np.random.default_rng(0)
    index, known = DigestIndex(), {}
    for _ in range(30):
        digests = np.unique(rng.integers(1, 1 << 62, size=1500).astype(np.uint64) << np.uint64(64 - bits))
        asked = np.concatenate([digests, np.array(list(known), dtype=np.uint64)])
        assert index.find(asked).tolist() == [known.get(int(digest), UNKNOWN) for digest in asked]
        numbers = rng.integers(1000, size=len(digests))
        index.put(digests, numbers)
        known.update(zip(digests.tolist(), numbers.tolist(), strict=True))
    every = np.array(list(known), dtype=np.uint64)
    assert index.find(every).tolist() == list(known.values())


def test_nothing_is_found_in_an_empty_index():
    assert DigestIndex().find(np.array([1, 2], dtype=np.uint64)).tolist() == [UNKNOWN, UNKNOWN]
    assert DigestIndex().find(np.empty(0, dtype=np.uint64)).tolist() == []
