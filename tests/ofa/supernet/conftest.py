import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="supernets need torch")

from ofa_nas.spaces import find_space  # noqa: E402
from ofa_nas.supernet import build_supernet  # noqa: E402


@pytest.fixture(autouse=True)
def _on_one_thread(one_thread):
    """For every test of this folder."""


@pytest.fixture
def make_supernet():
    """With running statistics and kernel matrices that are not what they start as."""

    def make(space="tiny", seed=0, classes=None):
        torch.manual_seed(seed)
        supernet = build_supernet(find_space(space), classes)
        with torch.no_grad():
            for name, tensor in supernet.state_dict().items():
                if name.endswith("_matrix"):
                    tensor += 0.1 * torch.randn_like(tensor)
                elif name.endswith(("running_mean", "bn.bias")):
                    tensor.normal_(std=0.1)
                elif name.endswith(("running_var", "bn.weight")):
                    tensor.uniform_(0.5, 1.5)
        return supernet.eval()

    return make


@pytest.fixture
def make_architectures():
    def make(space="tiny", count=5, seed=0):
        found = find_space(space)
        return found.decode(found.sample(count, np.random.default_rng(seed)))

    return make


@pytest.fixture
def make_images():
    def make(px=28, count=4, seed=0):
        return torch.randn(count, 3, px, px, generator=torch.Generator().manual_seed(seed)).contiguous(
            memory_format=torch.channels_last
        )

    return make
