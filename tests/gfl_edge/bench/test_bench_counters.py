"""Counters of CPUs, Jetson boards and NVIDIA cards, from made-up /sys trees and a stand-in for NVML."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest

from gfl_edge.bench.device.counters import TOTAL, Reading, Recorder
from gfl_edge.bench.device.cpu import CpuCounters
from gfl_edge.bench.device.jetson import JetsonCounters
from gfl_edge.bench.device.machine import LoadMeter, process_bytes
from gfl_edge.bench.device.nvml import NvmlCounters
from gfl_edge.bench.device.open import NoCounters, open_counters
from gfl_edge.errors import BackendError, MissingDependencyError
from gfl_edge.report.schema import Missing, Range

BUS = "0000:0B:00.0"
CORE = "sys/devices/system/cpu/cpu{}/"
RAPL = "sys/class/powercap/intel-rapl:{}/"


def tree(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def cpu_tree(root):
    return tree(
        root,
        {
            CORE.format(0) + "cpufreq/scaling_cur_freq": 1800000,
            CORE.format(1) + "cpufreq/scaling_cur_freq": 3600000,
            CORE.format(0) + "thermal_throttle/core_throttle_count": 3,
            CORE.format(1) + "thermal_throttle/core_throttle_count": 4,
            CORE.format(0) + "thermal_throttle/package_throttle_count": 0,
            "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
            "sys/class/thermal/thermal_zone0/temp": 51500,
            RAPL.format(0) + "energy_uj": 5_000_000,
            RAPL.format(0) + "max_energy_range_uj": 10_000_000,
            RAPL.format("0:0") + "energy_uj": 99,  # a part of the package
            RAPL.format(1) + "energy_uj": 1_000_000,
            RAPL.format(1) + "max_energy_range_uj": 10_000_000,
        },
    )


def test_a_cpu(tmp_path):
    counters = CpuCounters(cpu_tree(tmp_path))
    found = counters.read()
    assert found.clocks_mhz == {"cpu0": 1800, "cpu1": 3600}
    assert found.temperatures_c == {"x86_pkg_temp": 51.5}
    assert found.energy_j == 6
    assert found.throttle_events == {"core too hot": 7, "package too hot": 0}
    assert counters.missing.keys() == {"memory"}


def test_energy_counters_start_again_at_0(tmp_path):
    counters = CpuCounters(cpu_tree(tmp_path))
    tree(tmp_path, {RAPL.format(0) + "energy_uj": 2_000_000})
    assert counters.read().energy_j == 13
    assert counters.read().energy_j == 13


def test_a_machine_that_shows_nothing_says_so(tmp_path):
    counters = CpuCounters(tmp_path)
    assert counters.read() == Reading(clocks_mhz={}, temperatures_c={}, powers_w={}, throttle_events={})
    assert counters.missing.keys() == {"clocks", "temperature", "power", "throttling", "memory"}
    assert "virtual machines" in counters.missing["power"]


def test_energy_that_may_not_be_read(tmp_path):
    (tmp_path / RAPL.format(0) / "energy_uj").mkdir(parents=True)  # reading it fails, as without permission
    counters = CpuCounters(tmp_path)
    assert counters.read().energy_j is None
    assert "needs root" in counters.missing["power"]


def jetson_tree(root):
    monitor, oc = "sys/class/hwmon/hwmon3/", "sys/class/hwmon/hwmon1/"
    return tree(
        root,
        {
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "sys/class/devfreq/17000000.gpu/cur_freq": 1020000000,
            "sys/class/devfreq/15340000.vic/cur_freq": 115200000,
            "sys/class/thermal/thermal_zone0/type": "gpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": 48250,
            "sys/class/thermal/thermal_zone1/type": "cv0-thermal",
            "sys/class/thermal/thermal_zone1/temp": -256000,  # switched off
            f"{monitor}name": "ina3221",
            **{f"{monitor}in{i}_label": label for i, label in ((1, "VDD_IN"), (2, "VDD_CPU_GPU_CV"), (3, "NC"))},
            **{f"{monitor}in{i}_input": 5000 for i in (1, 2, 3)},
            **{f"{monitor}curr{i}_input": 1000 * i for i in (1, 2, 3)},
            f"{oc}name": "soctherm_oc",
            f"{oc}oc1_event_cnt": 0,
            f"{oc}oc3_event_cnt": 2,
            "sys/class/hwmon/hwmon0/name": "pwmfan",
        },
    )


def test_a_jetson_board(tmp_path):
    counters = open_counters(SimpleNamespace(name="tensorrt"), jetson_tree(tmp_path))
    assert isinstance(counters, JetsonCounters)
    found = counters.read()
    assert found.clocks_mhz == {"gpu": 1020}
    assert found.temperatures_c == {"gpu-thermal": 48.25}
    assert found.powers_w == {"VDD_IN": 5, "VDD_CPU_GPU_CV": 10, TOTAL: 5}
    assert found.throttle_events == {"over-current oc1": 0, "over-current oc3": 2}
    assert counters.missing.keys() == {"memory"}


def test_a_board_that_measures_no_input_has_the_sum_of_its_rails(tmp_path):
    root = tree(jetson_tree(tmp_path), {"sys/class/hwmon/hwmon3/in1_label": "VDD_GPU_SOC"})
    assert JetsonCounters(root).read().powers_w[TOTAL] == 15


def test_a_container_on_a_jetson_board(tmp_path):
    counters = JetsonCounters(tree(tmp_path, {"etc/nv_tegra_release": "# R36"}))
    assert counters.missing.keys() == {"clocks", "temperature", "power", "throttling", "memory"}
    assert counters.read().powers_w == {}


class NVMLError(Exception):
    pass


class FakeNvml(ModuleType):
    """The calls of nvidia-ml-py that are used, for two cards."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    __file__ = "pynvml.py"

    def __init__(self):
        super().__init__("pynvml")
        self.cards = ["0000:03:00.0", "0000:0B:00.0"]  # two of one name
        self.reasons, self.energy_mj, self.starts, self.no_driver = 0, 1000, 0, False

    def nvmlInit(self):  # noqa: N802
        if self.no_driver:
            raise NVMLError("Driver Not Loaded")
        self.starts += 1

    def nvmlShutdown(self):  # noqa: N802
        self.starts -= 1

    def nvmlDeviceGetHandleByPciBusId(self, pci_bus_id):  # noqa: N802
        if pci_bus_id not in self.cards:
            raise NVMLError("Not Found")
        return self.cards.index(pci_bus_id)

    def nvmlDeviceGetClockInfo(self, card, kind):  # noqa: N802
        assert card == 1
        return {1: 1545, 2: 7000}[kind]

    def nvmlDeviceGetTemperature(self, card, sensor):  # noqa: N802
        return 70

    def nvmlDeviceGetPowerUsage(self, card):  # noqa: N802
        return 250_000

    def nvmlDeviceGetTotalEnergyConsumption(self, card):  # noqa: N802
        if self.energy_mj is None:
            raise NVMLError("Not Supported")
        return self.energy_mj

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, card):  # noqa: N802
        return self.reasons

    def nvmlDeviceGetMemoryInfo(self, card):  # noqa: N802
        return SimpleNamespace(used=123)


@pytest.fixture
def nvml(monkeypatch):
    library = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    return library


def test_an_nvidia_card(nvml):
    counters = NvmlCounters(BUS)
    nvml.reasons = 0x1 | 0x4 | 0x20  # idle is no throttling
    found = counters.read()
    assert found.clocks_mhz == {"sm": 1545, "memory": 7000}
    assert (found.temperatures_c, found.powers_w, found.energy_j) == ({"gpu": 70}, {TOTAL: 250}, 1)
    assert found.throttled == ("power cap reached", "too hot (driver)")
    assert counters.memory_bytes() == 123
    counters.close()
    counters.close()
    assert nvml.starts == 0


def test_a_card_without_an_energy_counter(nvml):
    nvml.energy_mj = None
    counters = NvmlCounters(BUS)
    assert counters.read().energy_j is None
    assert counters.missing == {"energy": "NVML: Not Supported"}


def test_without_card_or_driver_nvml_is_closed_again(nvml):
    with pytest.raises(BackendError, match=r"knows no card at 0000:FF:00\.0 \(Not Found\)"):
        NvmlCounters("0000:FF:00.0")
    assert nvml.starts == 0
    nvml.no_driver = True
    with pytest.raises(BackendError, match="NVML cannot be used"):
        NvmlCounters(BUS)


def test_which_counters(nvml, tmp_path):
    gpu = SimpleNamespace(name="rtx", pci_bus_id=BUS)
    assert isinstance(open_counters(gpu, tmp_path), NvmlCounters)
    assert isinstance(open_counters(SimpleNamespace(name="openvino"), tmp_path), CpuCounters)
    assert "does not say by pci_bus_id" in open_counters(SimpleNamespace(name="own"), tmp_path).missing["power"]
    nvml.no_driver = True
    counters = open_counters(gpu, tmp_path)
    assert isinstance(counters, NoCounters)
    assert "NVML cannot be used" in counters.missing["power"]
    assert counters.memory_bytes() is None


class Script:
    """Counters of scripted readings, one after the other."""

    name = "script"

    def __init__(self, *readings, **missing):
        self._readings, self.missing = list(readings), missing

    def read(self):
        return self._readings.pop(0)


def record(counters, turns, images, middle=False):
    recorder = Recorder(counters)
    for _ in range(turns):
        with recorder.turn() as turn:
            turn.images = images
            if middle:
                recorder.read(turn)
    return recorder.summary()


def test_energy_is_counted_only_within_turns():
    values = [Reading(energy_j=energy) for energy in (0, 10, 100, 130)]  # 90 J went to somebody else
    found = record(Script(*values), turns=2, images=8)
    assert (found.energy_per_image_j, found.energy_from) == (pytest.approx(40 / 16), "counter")


def test_energy_from_power_is_power_by_time(monkeypatch):
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    watts = [Reading(powers_w={TOTAL: value}) for value in (99, 5, 7)]  # the first comes before the work
    found = record(Script(*watts), turns=1, images=4, middle=True)
    assert (found.energy_per_image_j, found.energy_from) == (pytest.approx(6 * 2 / 4), "power")
    assert found.powers_w == (Range(TOTAL, 5, 6, 7),)


def test_throttling_is_seen_in_reasons_and_in_counters():
    cool = Reading(throttle_events={"hot": 3})
    assert record(Script(cool, cool), 1, 1).throttled is False
    grown = record(Script(cool, replace(cool, throttle_events={"hot": 4})), 1, 1)
    assert (grown.throttled, grown.throttle_reasons) == (True, ("hot",))
    said = record(Script(Reading(), Reading(throttled=("power cap reached",))), 1, 1)
    assert (said.throttled, said.throttle_reasons) == (True, ("power cap reached",))
    between = [cool, cool, *[replace(cool, throttle_events={"hot": 9})] * 2]  # between two turns
    assert record(Script(*between), 2, 1).throttled is False


def test_what_is_not_there_is_null_with_its_reason():
    found = record(Script(Reading(), Reading(), throttling="no counters", power="no monitor"), 1, 1)
    assert (found.throttled, found.energy_per_image_j, found.energy_from) == (None, None, None)
    assert found.missing == (Missing("power", "no monitor"), Missing("throttling", "no counters"))


@pytest.fixture
def proc(monkeypatch, tmp_path):
    """The folder in which psutil finds what Linux counts."""
    psutil = pytest.importorskip("psutil")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    return tmp_path


def test_how_busy_the_machine_was(proc, monkeypatch):
    monkeypatch.setattr("psutil.getloadavg", lambda: (1.5, 0.7, 0.5))
    tree(proc, {"stat": "cpu 100 0 100 1000 0 0 0 0 0 0\ncpu0 1"})
    meter = LoadMeter()
    tree(proc, {"stat": "cpu 100100 0 100 50000 1000 0 0 2000 0 0\ncpu0 1"})
    found = meter.summary()
    assert found.load_average_1min == 1.5
    assert found.cpu_percent_stolen == pytest.approx(100 * 2000 / 152_000)
    assert found.cpu_percent_of_others == pytest.approx(100 * 100_000 / 152_000, abs=1)  # less what this test took


def test_memory_of_the_process():
    resident = process_bytes()
    assert LoadMeter().summary().process_peak_bytes >= resident > 1 << 20


def test_a_system_that_counts_nothing(proc, monkeypatch):
    def none():
        raise OSError

    monkeypatch.setattr("psutil.getloadavg", none)
    found = LoadMeter().summary()
    assert (found.load_average_1min, found.cpu_percent_of_others, found.cpu_percent_stolen) == (None,) * 3


def test_without_psutil_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MissingDependencyError, match=r"gfl-edge\[report\]"):
        LoadMeter()
