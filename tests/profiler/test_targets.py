"""Targets: the shipped ones, and the user's target files."""

import pytest

from ofa_profiler.connections import connect
from ofa_profiler.targets import target as targets
from ofa_profiler.targets.target import choose_runtime, find_target
from ofa_tables.errors import FileError, UnknownName, UsageError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write targets.toml to the user's configuration directory (own), or to the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def write(text, own=False):
        path = tmp_path / "config" / "ofa-profile" / "targets.toml" if own else tmp_path / "targets.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_every_shipped_target_is_complete(write):
    for target in targets.all_targets().values():
        assert target.description
        assert target.connection in ("local", "ssh", "adb", "simulated")
        assert target.runtimes
        assert set(target.origins.values()) == {"ofa-profile"}


def test_the_current_directory_overrides_the_configuration_directory(write):
    own = write('[jetson-tx2]\naddress = "nvidia@lab"\nset = { power-mode = "0", python = "python3.8" }', own=True)
    write('[jetson-tx2]\naddress = "nvidia@desk"')
    target = targets.find_target("jetson-tx2")
    assert target.address == "nvidia@desk"
    assert target.conditions == {"power-mode": "0"}
    assert target.settings == {"python": "python3.8"}
    assert target.runtimes == targets.all_targets()["jetson-tx2"].runtimes
    assert target.origins["address"] == "targets.toml"
    assert target.origins["set"] == str(own)
    assert target.origins["runtimes"] == "ofa-profile"


def test_the_command_line_overrides_target_files(write):
    write('[jetson-tx2]\nset = { power-mode = "0", python = "python3.8" }')
    target = targets.find_target("jetson-tx2", {"power-mode": "2"})
    assert (target.conditions, target.settings) == ({"power-mode": "2"}, {"python": "python3.8"})


def test_a_target_inherits_from_another(write):
    write('[attic]\nlike = "raspberry-pi-4"\naddress = "pi@attic"')
    target = targets.find_target("attic")
    assert (target.connection, target.address) == ("ssh", "pi@attic")
    assert target.origins["address"] == "targets.toml"
    assert target.suggest == {"governor": "performance"}


def test_an_address_can_be_given_as_target(write):
    assert targets.find_target("pi@10.0.0.7:2222").connection == "ssh"
    assert targets.find_target("ssh://10.0.0.7:2222").connection == "ssh"
    assert targets.find_target("tcp:127.0.0.1:7000").address == "127.0.0.1:7000"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[jetson-tx2\n", "is not valid TOML"),
        ('address = "x"', "'address' is not in a section"),
        ('[jetson-tx2]\nadress = "x"', "did you mean address?"),
        ("[jetson-tx2]\naddress = 7", "address must be a string, not 7"),
        ('[jetson-tx2]\nruntimes = "torch"', "runtimes must be a list of names"),
        ("[jetson-tx2]\nset = { power-mode = 0 }", "set must be a table of strings"),
        ('[jetson-tx2]\nprecision = "fp64"', "precision must be one of fp32, tf32, fp16, bf16, int8"),
        ('[mine]\nlike = "jetson-tx3"', "did you mean jetson-tx2?"),
        ('[mine]\naddress = "x"', "mine has no connection"),
    ],
)
def test_an_invalid_file_is_reported_with_the_reason(write, text, words):
    write(text)
    with pytest.raises(FileError, match=r"targets\.toml") as error:
        targets.all_targets()
    assert words in str(error.value)


def test_an_unknown_name_suggests_the_nearest(write):
    with pytest.raises(UnknownName, match="did you mean jetson-tx2"):
        targets.find_target("jetson-tx3")


def test_a_missing_or_invalid_address_is_reported(write):
    with pytest.raises(UsageError, match=r"has no address yet; write it into \./targets\.toml"):
        connect(targets.find_target("jetson-tx2"))
    with pytest.raises(UsageError, match="is not an address"):
        connect(targets.find_target("nvidia@board:port"))


def test_the_name_of_a_command_without_its_prefix_is_understood_as_a_slip():
    description = {"runtimes": {"onnxruntime": "1"}, "missing_runtimes": {}}
    with pytest.raises(UnknownName, match=r"no runtime named 'trtexec'; did you mean command:trtexec\?$"):
        choose_runtime(find_target("local"), "trtexec", description)
