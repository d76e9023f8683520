"""Facts and temperatures out of what devices print: Android 7 to 16, emulators, and noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from android_harness.devices import Facts, Thermal
from android_harness.devices.local import LocalDevice
from android_harness.devices.readings import (
    SCRIPT_BYTES,
    facts_script,
    parse_df,
    parse_facts,
    parse_hal_zones,
    parse_khz,
    parse_status,
    parse_thermal,
    parse_zones,
    thermal_script,
)
from android_harness.devices.requirements import require_usable
from exporter.parity import Level
from swipe.errors import MissingError


def printed(**sections: str) -> str:
    """What one of the scripts prints."""
    return "".join(f"\n@@swipe {name}\n{text}\n" for name, text in sections.items())


PIXEL = {
    "props": """\
ro.product.model=Pixel 9
ro.product.cpu.abi=arm64-v8a
ro.build.version.sdk=35
ro.build.fingerprint=google/tokay/tokay:15/AP4A.250105.002/12701944:user/release-keys
ro.soc.manufacturer=Google
ro.soc.model=Tensor G4
ro.board.platform=zumapro
ro.hardware=tokay
ro.kernel.qemu=
ro.boot.qemu=""",
    "machine": "aarch64",
    "kernel": "aarch64",
    "linker": "/system/bin/linker64",
    "product": "",
    "governors": "sched_pixel\nsched_pixel\nsched_pixel",
    "max": "cpu0 1950000\ncpu10 3105000\ncpu2 2600000\ncpu3 ",
    "df": """\
Filesystem       1K-blocks     Used Available Use% Mounted on
/dev/block/dm-59 114210816 51203448  62876296  45% /data/user/0""",
    "cpuinfo": "processor\t: 0\nBogoMIPS\t: 49.15\nCPU implementer\t: 0x41\n",
}
HOT = {
    "service": """\
IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 2
\tkilled: false
\tbroadcasts count: -1
Thermal Status: 2
Cached temperatures:
\tTemperature{mValue=99.1, mType=0, mName=BIG, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL AIDL 2  connected: yes
Current temperatures from HAL:
\tTemperature{mValue=71.25, mType=0, mName=BIG, mStatus=0}
\tTemperature{mValue=60.0, mType=0, mName=LITTLE, mStatus=0}
\tTemperature{mValue=39.4, mType=3, mName=VIRTUAL-SKIN, mStatus=2}
\tTemperature{mValue=NaN, mType=0, mName=MID, mStatus=0}
\tTemperature{mValue=33.1, mType=1, mName=GPU, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=3, mType=2, mName=thermal-cpufreq-2}
Temperature static thresholds from HAL:
\tTemperatureThreshold{mType=3, mName=VIRTUAL-SKIN, mHotThrottlingThresholds=[NaN, 39.0, 43.0]}
""",
    "battery": """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Dock powered: false
  Max charging current: 500000
  Charge counter: 3270000
  status: 2
  health: 2
  present: true
  level: 81
  scale: 100
  voltage: 4210
  temperature: 364
  technology: Li-ion
08-11 18:34:14.721  Sending ACTION_BATTERY_CHANGED: level:72, temperature:345
""",
    "zones": "",
    "max": "cpu0 1950000\ncpu1 1401000\ncpu2 ",
}


def facts_of(**changes: str) -> Facts:
    """The Pixel's facts, with other text in some sections."""
    return parse_facts(printed(**(PIXEL | changes)), "android", "R5")


def test_a_phone_is_read() -> None:
    assert facts_of() == Facts(
        kind="android",
        serial="R5",
        model="Pixel 9",
        abi="arm64-v8a",
        sdk=35,
        android=True,
        soc="Google Tensor G4",
        build="google/tokay/tokay:15/AP4A.250105.002/12701944:user/release-keys",
        governors=("sched_pixel",),
        cpu_max_khz=(1_950_000, 2_600_000, 3_105_000),
        free_bytes=62_876_296 * 1024,
        emulated=None,
    )
    assert facts_of().level is Level.DEVICE


def test_terminal_line_ends_change_nothing() -> None:
    text = printed(**PIXEL).replace("\n", "\r\n")
    assert parse_facts(text, "android", "R5") == facts_of()


def test_an_old_phone_names_its_chip_elsewhere() -> None:
    props = "ro.product.model=Moto\nro.product.cpu.abi=armeabi-v7a\nro.build.version.sdk=24"
    hardware = "Processor\t: ARMv7 rev 3\nHardware\t: Qualcomm Technologies, Inc MSM8916"
    old = facts_of(props=props, machine="armv8l", kernel="", cpuinfo=hardware)
    assert (old.soc, old.abi, old.sdk) == ("Qualcomm Technologies, Inc MSM8916", "armeabi-v7a", 24)
    platform = facts_of(props=props + "\nro.board.platform=msm8916")
    assert platform.soc == "msm8916"


def test_linux_behind_adbd_is_not_android() -> None:
    bare = facts_of(props="ro.product.model=", linker="", kernel="aarch64", product="Board X")
    assert (bare.android, bare.sdk, bare.abi, bare.model) == (False, None, "arm64-v8a", "Board X")


def test_a_device_that_says_nothing_gets_no_guess() -> None:
    for text in ("", "sh: syntax error", printed()):
        assert parse_facts(text, "android", "R5") == Facts(
            "android", "R5", None, "unknown", None, False
        )
        assert parse_thermal(text) == Thermal()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kernel": "x86_64"}, "its kernel is of x86_64, its programs of arm64-v8a"),
        ({"props": PIXEL["props"].replace("kernel.qemu=", "kernel.qemu=1")}, "ro.kernel.qemu is 1"),
        ({"props": PIXEL["props"].replace("boot.qemu=", "boot.qemu=1")}, "ro.boot.qemu is 1"),
        ({"props": PIXEL["props"].replace("=tokay", "=ranchu")}, "its hardware is ranchu"),
        ({"props": PIXEL["props"].replace("=tokay", "=cutf_cvm")}, "its hardware is cutf_cvm"),
        ({"cpuinfo": "Hardware\t: Goldfish"}, "its hardware is Goldfish"),
        ({"cpuinfo": "model name\t: QEMU TCG CPU version 2.5+"}, "QEMU's interpreter"),
    ],
)
def test_every_sign_of_emulation_is_seen(changes: dict[str, str], reason: str) -> None:
    facts = facts_of(**changes)
    assert facts.emulated is not None
    assert reason in facts.emulated
    assert facts.level is Level.ARM64


def test_a_32_bit_system_on_a_64_bit_kernel_is_no_emulation() -> None:
    props = PIXEL["props"].replace("arm64-v8a", "armeabi-v7a")
    assert facts_of(props=props).emulated is None


def test_a_hot_phone_is_read() -> None:
    assert parse_thermal(printed(**HOT)) == Thermal(
        status=2,
        battery_c=36.4,
        zones_mc={"BIG": 71_250, "LITTLE": 60_000},
        max_khz={0: 1_950_000, 1: 1_401_000},
        charging=True,
    )


def test_zones_of_the_kernel_go_before_those_of_the_service() -> None:
    zones = """\
thermal_zone0 45100 cpu-0-0-usr
thermal_zone1 46200 cpu-0-0-usr
thermal_zone2 40000 gpuss-0-usr
thermal_zone3 -273000 cpu-1-0-usr
thermal_zone4 45 cpu-1-1-usr
thermal_zone5  cpu-1-2-usr
thermal_zone6 38000 battery
thermal_zone7 52000 x86_pkg_temp
thermal_zone8 51000 CPU big cluster
"""
    assert parse_thermal(printed(**(HOT | {"zones": zones}))).zones_mc == {
        "cpu-0-0-usr": 45_100,
        "cpu-0-0-usr (thermal_zone1)": 46_200,
        "x86_pkg_temp": 52_000,
        "CPU big cluster": 51_000,
    }
    assert parse_zones("thermal_zone*  \n") == {}


def test_vendors_that_number_types_in_their_own_way_are_read_by_name() -> None:
    text = """Current temperatures from HAL:
\tTemperature{mValue=34.0, mType=1, mName=TYPE_CPU, mStatus=0}
\tTemperature{mValue=34.4, mType=3, mName=TYPE_BATTERY, mStatus=0}
\tTemperature{mValue=-99.9, mType=6, mName=TYPE_POWER_AMPLIFIER, mStatus=0}
"""
    assert parse_hal_zones(text) == {"TYPE_CPU": 34_000}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("IsStatusOverride: true\nThermal Status: 6\n", 6),
        ("Thermal Status: 7", None),
        ("Thermal Status: -1", None),
        ("Thermal Status: none", None),
        ("Can't find service: thermalservice", None),
        ("Permission Denial: can't dump thermalservice from pid 1", None),
    ],
)
def test_the_thermal_status_is_one_of_androids_or_unknown(text: str, status: int | None) -> None:
    assert parse_status(text) == status


def test_batteries() -> None:
    def read(*lines: str) -> tuple[float | None, bool | None]:
        thermal = parse_thermal(printed(battery="\n".join(lines)))
        return thermal.battery_c, thermal.charging

    nougat = ("  AC powered: true", "  USB powered: false", "  present: true", "  temperature: 298")
    assert read(*nougat) == (29.8, True)
    assert read("  AC powered: false", "  temperature: -57") == (-5.7, False)
    assert read("  AC powered: true", "  present: false", "  temperature: 0") == (None, True)
    assert read("  AC powered: perhaps", "  temperature: warm") == (None, None)
    assert read("Can't find service: battery") == (None, None)


@pytest.mark.parametrize(
    ("text", "free_bytes"),
    [
        (
            "Filesystem 1K-blocks Used Available Use% Mounted on\n"
            "/dev/block/bootdevice/by-name/userdata\n     1000 100 900 10% /data",
            900 * 1024,
        ),
        (
            "Filesystem     1024-blocks Used Available Capacity Mounted on\nx 9 4 5 45% /",
            5 * 1024,
        ),
        (
            "Filesystem  Size  Used  Free  Blksize\n/data 12.0G 1.0G 11.0G 4096",
            None,
        ),
        ("df: /data/local/tmp: Permission denied", None),
        ("Filesystem 1K-blocks Used Available Use% Mounted on\nproc - - - - /proc", None),
        ("", None),
    ],
)
def test_free_space(text: str, free_bytes: int | None) -> None:
    assert parse_df(text) == free_bytes


def test_frequencies_are_in_the_order_of_the_cpus() -> None:
    assert parse_khz("cpu10 3\ncpu2 2\ncpu0 1\ncpufreq 9\ncpuidle \ncpu1 \n") == {
        0: 1,
        2: 2,
        10: 3,
    }


@given(st.text(), st.sampled_from(sorted(PIXEL)), st.integers(0, 400))
def test_no_text_breaks_the_facts(noise: str, section: str, at: int) -> None:
    text = PIXEL[section]
    for changed in (noise, text[:at] + noise + text[at:]):
        facts = facts_of(**{section: changed})
        assert facts.abi
        assert facts.free_bytes is None or facts.free_bytes >= 0
        assert all(khz >= 0 for khz in facts.cpu_max_khz)
    assert parse_facts(noise, "android", "R5").abi == "unknown"


@given(st.text(), st.sampled_from(sorted(HOT)), st.integers(0, 900))
def test_no_text_breaks_the_readings(noise: str, section: str, at: int) -> None:
    text = HOT[section]
    for changed in (noise, text[:at] + noise + text[at:]):
        thermal = parse_thermal(printed(**(HOT | {section: changed})))
        assert thermal.status is None or 0 <= thermal.status <= 6
        assert all(1_000 <= value < 200_000 for value in thermal.zones_mc.values())
    assert parse_thermal(noise) == Thermal()


def test_numbers_of_any_length_are_no_trouble() -> None:
    digits = "9" * 5000
    assert parse_thermal(printed(battery=f"temperature: {digits}")).battery_c is None
    assert parse_khz(f"cpu0 {digits}\ncpu{digits} 1") == {}
    assert parse_zones(f"thermal_zone0 {digits} cpu") == {}
    assert parse_hal_zones(
        "Current temperatures from HAL:\n"
        f"Temperature{{mValue={digits}, mType=0, mName=cpu, mStatus=0}}"
    ) == MappingProxyType({})


def test_the_scripts_fit_into_one_message() -> None:
    folder = "/data/local/tmp/swipe-bench"
    for script in (facts_script(folder), thermal_script()):
        assert len(script.encode()) <= SCRIPT_BYTES


def test_the_scripts_read_a_kernels_files(tmp_path: Path) -> None:
    cpus = tmp_path / "devices/system/cpu"
    for cpu, khz in ((0, 1_800_000), (1, 1_800_000), (10, 2_900_000)):
        (cpus / f"cpu{cpu}/cpufreq").mkdir(parents=True)
        (cpus / f"cpu{cpu}/cpufreq/cpuinfo_max_freq").write_text(f"{khz}\n")
        (cpus / f"cpu{cpu}/cpufreq/scaling_max_freq").write_text(f"{khz - 1}\n")
        (cpus / f"cpu{cpu}/cpufreq/scaling_governor").write_text(f"gov{cpu % 10}\n")
    (cpus / "cpu2").mkdir()  # switched off
    for zone, name, value in ((0, "acpitz", 20_000), (3, "cpu thermal", 47_000)):
        (tmp_path / f"class/thermal/thermal_zone{zone}").mkdir(parents=True)
        (tmp_path / f"class/thermal/thermal_zone{zone}/type").write_text(f"{name}\n")
        (tmp_path / f"class/thermal/thermal_zone{zone}/temp").write_text(f"{value}\n")
    (tmp_path / "class/thermal/thermal_zone4").mkdir()  # not readable
    device = LocalDevice(str(tmp_path / "not there/yet"), sysfs=str(tmp_path))
    facts, thermal = device.facts(), device.thermal()
    assert facts.cpu_max_khz == (1_800_000, 1_800_000, 2_900_000)
    assert facts.governors == ("gov0", "gov1")
    assert facts.free_bytes is not None
    assert thermal.max_khz == {0: 1_799_999, 1: 1_799_999, 10: 2_899_999}
    assert thermal.zones_mc == {"cpu thermal": 47_000}


def test_what_cannot_be_measured_is_refused_with_a_mend() -> None:
    facts = facts_of()
    require_usable(facts, need_bytes=62_876_296 * 1024)
    require_usable(replace(facts, free_bytes=None), need_bytes=1)
    require_usable(replace(facts, sdk=24))
    require_usable(replace(facts, sdk=None, android=False))
    for sabotaged, told, mend in (
        (replace(facts, sdk=23), "API level 23, at least 24", "Android 7 or newer"),
        (replace(facts, sdk=None), "does not say its version", "getprop"),
        (replace(facts, abi="armeabi-v7a"), "executes armeabi-v7a", "32-bit"),
        (replace(facts, abi="unknown"), "executes unknown", "use a device"),
        (replace(facts, free_bytes=20_000_000), "20 MB free, 64385 MB are needed", "--clean"),
    ):
        with pytest.raises(MissingError, match=told) as error:
            require_usable(sabotaged, need_bytes=62_876_296 * 1024)
        assert mend in error.value.fix
    with pytest.raises(MissingError, match="runners are there for x86_64"):
        require_usable(facts, abis=["x86_64"])
