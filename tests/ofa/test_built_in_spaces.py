"""The built-in spaces stay what they were: tables, checkpoints and accuracy models of earlier versions depend on them.

``built_in_spaces.json`` was written before the spaces became files. Run this file as a program to print the values of
the present code, after a change that is meant to change them.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from ofa_nas.accuracy.encoding import PUBLISHED_PX, Encoder
from ofa_nas.spaces import Space, all_spaces, find_space

FIXTURE = Path(__file__).with_name("built_in_spaces.json")
NETWORKS = 200


def facts_of(space: Space) -> dict:
    sampled = space.sample(NETWORKS, np.random.default_rng(0))
    spread = space.sample_spread(NETWORKS, np.random.default_rng(1))
    canonical = space.canonical(sampled)
    return {
        "genes": [[group.name, list(group.choices), group.count] for group in space.groups],
        "stages": list(space.stages),
        "classes": space.classes,
        "batch_norm_epsilon": space.batch_norm_epsilon,
        "keys": {str(px): digest("\n".join(space.keys(px))) for px in space.resolutions_px},
        "operators": digest(repr([space.blocks(px) for px in (space.resolutions_px[0], space.resolutions_px[-1])])),
        "entries": digest(space.entry_indices(sampled).astype("<i8").tobytes()),
        "digests": digest(space.digests(sampled).astype("<u8").tobytes()),
        "sampled": digest(sampled.genes.tobytes()),
        "spread": digest(spread.genes.tobytes()),
        "canonical": digest(canonical.genes.tobytes()),
        "architectures": digest(json.dumps([found.to_json() for found in space.decode(canonical)])),
        "networks": digest("\n".join(space.network(found).key for found in space.decode(sampled[:10]))),
        "encodings": [digest(Encoder(space, px)(sampled).tobytes()) for px in (PUBLISHED_PX, space.resolutions_px)],
        "macs": int(space.macs(sampled).sum()),
        "parameters": int(space.parameters(sampled).sum()),
        "example": space.example,
    }


def digest(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]


EXPECTED = json.loads(FIXTURE.read_text())


@pytest.mark.parametrize("name", EXPECTED)
def test_a_built_in_space_has_the_keys_entries_digests_encodings_and_samples_of_earlier_versions(name):
    assert facts_of(find_space(name)) == EXPECTED[name]


def test_the_built_in_spaces_are_those_of_earlier_versions():
    assert [space.name for space in all_spaces()] == list(EXPECTED)


if __name__ == "__main__":
    print(json.dumps({space.name: facts_of(space) for space in all_spaces()}, indent=1))
