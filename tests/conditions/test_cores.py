"""Threads need cores: what ``affinity=big`` means on each device, and when threads would share a core."""

import pytest

from ofa_agent.device import cores, suitability
from ofa_agent.device.shell import Shell
from ofa_agent.protocol import messages as wire

CPU = "sys/devices/system/cpu"


def warnings(shell, threads):
    return suitability.warnings(shell, wire.Settings(runtime="onnxruntime", precision="fp32", threads=threads))


@pytest.mark.parametrize(
    ("name", "threads", "used", "said"),
    [
        ("snapdragon-855", 1, "7", "1 × 2841 MHz"),
        ("snapdragon-855", 2, "4-7", "1 × 2841 MHz, 3 × 2419 MHz"),
        ("snapdragon-855", 4, "4-7", "1 × 2841 MHz, 3 × 2419 MHz"),
        ("snapdragon-855", 5, "0-7", "4 × 1785 MHz"),
        ("ryzen-preferred-cores", 1, "0-7", "8 × 5608 MHz"),
        ("ryzen-preferred-cores", 8, "0-7", "8 × 5608 MHz"),
        ("offline-big", 4, "0-3", "the cores 4-7 are offline"),
    ],
)
def test_big_takes_the_fastest_clusters_until_there_are_enough_cores(device, setter_of, name, threads, used, said):
    shell = device(name)
    setter = setter_of(shell)
    assert setter.set({"affinity": "big"}, threads) == {}
    assert shell.pinned() == used
    (note,) = setter.notes
    assert note.startswith(f"affinity=big uses the cores {used} (")
    assert said in note


def test_an_offline_core_is_refused_as_offline(device, setter_of):
    not_set = setter_of(device("offline-big")).set({"affinity": "4-7"}, 4)
    assert not_set == {"affinity": "core 4 is offline; this device has the cores 0-3"}


def test_cores_with_a_common_clock_domain_are_one_cluster_and_others_are_not(build):
    files = {f"{CPU}/online": "0-4"}
    clocks = {0: (2200000, "0 1"), 1: (2200000, "0 1"), 2: (3150000, "2 3"), 3: (3150000, "2 3"), 4: (3300000, "4")}
    for core, (khz, domain) in clocks.items():
        files[f"{CPU}/cpu{core}/cpufreq/cpuinfo_max_freq"] = str(khz)
        files[f"{CPU}/cpu{core}/cpufreq/related_cpus"] = domain
    assert cores.clusters(build(files)) == [([4], 3300), ([2, 3], 3150), ([0, 1], 2200)]


@pytest.mark.parametrize(
    ("may_use", "threads", "said"),
    [
        ("0", 2, "2 threads would share one core: the process may use only core 0 (offline: 4-7); use --threads 1"),
        (
            "0-1",
            4,
            "4 threads would share 2 cores: the process may use only the cores 0-1 (offline: 4-7); use --threads 2",
        ),
        ("0-7", 8, "8 threads would share 4 cores: the process may use only the cores 0-3 (offline: 4-7)"),
        ("0-3", 4, ""),
        ("", 2, ""),
    ],
)
def test_threads_that_would_share_a_core_are_refused(build, may_use, threads, said):
    files = {f"{CPU}/online": "0-3", f"{CPU}/present": "0-7", "proc/self/status": f"Cpus_allowed_list:\t{may_use}\n"}
    assert suitability.refusal(build(files), threads).startswith(said)
    assert bool(suitability.refusal(build(files), threads)) == bool(said)


GROUP = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc/self/cgroup": "0::/", f"{GROUP}/cpu.max": "150000 100000"}, 1.5),
        ({"proc/self/cgroup": "0::/", f"{GROUP}/cpu.max": "max 100000"}, 0),
        (
            {"proc/self/cgroup": "0::/a/b", f"{GROUP}/a/cpu.max": "50000 100000", f"{GROUP}/a/b/cpu.max": "max 100000"},
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/docker/1\n0::/",
                f"{GROUP}/cpu,cpuacct/cpu.cfs_quota_us": "200000",
                f"{GROUP}/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/",
                f"{GROUP}/cpu/cpu.cfs_quota_us": "-1",
                f"{GROUP}/cpu/cpu.cfs_period_us": "100000",
            },
            0,
        ),
    ],
)
def test_the_quota_of_a_control_group_is_the_lowest_of_its_parents(build, files, limit):
    assert cores.quota(build(files)) == limit


def test_a_quota_below_the_number_of_threads_is_a_warning(build):
    files = {
        f"{CPU}/online": "0-3",
        "proc/self/status": "Cpus_allowed_list:\t0-3\n",
        "proc/self/cgroup": "0::/",
        f"{GROUP}/cpu.max": "150000 100000",
    }
    (warning,) = warnings(build(files), 2)
    assert warning.startswith("2 threads can use only the CPU time of 1.5 cores")
    assert warnings(build(files), 1) == []


def test_hardware_threads_of_one_core_are_a_warning(build):
    files = {f"{CPU}/online": "0-3", "proc/self/status": "Cpus_allowed_list:\t0,2\n"}
    files |= {f"{CPU}/cpu{core}/topology/thread_siblings_list": f"{core % 2},{core % 2 + 2}" for core in range(4)}
    (warning,) = warnings(build(files), 2)
    assert warning == "2 threads share one physical core (hardware threads of one core: 0+2)"
    files["proc/self/status"] = "Cpus_allowed_list:\t0-1\n"
    assert warnings(build(files), 2) == []


def test_isolated_cores_are_a_warning_if_the_threads_need_them(build):
    files = {f"{CPU}/online": "0-3", f"{CPU}/isolated": "2-3", "proc/self/status": "Cpus_allowed_list:\t2-3\n"}
    (warning,) = warnings(build(files), 2)
    assert warning.startswith("the kernel does not distribute 2 threads over the isolated cores 2-3")
    assert warnings(build(files), 1) == []
    files["proc/self/status"] = "Cpus_allowed_list:\t0-3\n"
    assert warnings(build(files), 2) == []


@pytest.mark.parametrize(
    ("cpuinfo", "known"),
    [
        ("Features\t: fp asimd fphp asimdhp\n", True),
        ("Features\t: fp asimd\n", False),
        ("flags\t\t: fma avx2 f16c avx512_fp16\n", True),
        ("flags\t\t: fma avx2 f16c\n", False),
        ("processor\t: 0\n", None),
    ],
)
def test_a_processor_that_computes_in_fp16_is_recognised(build, cpuinfo, known):
    assert cores.has_fp16(build({"proc/cpuinfo": cpuinfo})) is known


def test_unknown_cores_give_no_message():
    class Unknown(Shell):
        def read(self, path):
            return None

    assert suitability.refusal(Unknown(), 64) == ""
    assert warnings(Unknown(), 64) == []


def test_cores_that_a_phone_has_switched_off_count(build):
    files = {f"{CPU}/online": "0-1", f"{CPU}/present": "0-7", "proc/self/status": "Cpus_allowed_list:\t4-7\n"}
    phone = build(files)
    phone.here = False
    assert suitability.refusal(phone, 4) == ""
    assert suitability.refusal(phone, 5).startswith("5 threads would share 4 cores")


def test_a_condition_that_is_not_in_effect_has_no_note(device, setter_of):
    setter = setter_of(device("snapdragon-855", refuse=("taskset",)))
    assert set(setter.set({"affinity": "big"}, 4)) == {"affinity"}
    assert setter.notes == []
