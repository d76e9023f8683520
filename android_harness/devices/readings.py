"""What a device says of itself, read from its text: facts, and how hot it is.

One shell script per question prints its sections, so that a question costs one round trip; the
parsers here turn the text into `Facts` and `Thermal` and never raise. What cannot be read is None
or left out, never a guess.

What it leaves out: running the scripts, which is each `Device`'s; deciding whether the device is
good enough, which is `requirements`'.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from android_harness.devices import Facts, Thermal

SCRIPT_BYTES: Final = 3500
"""A shell command travels in one message; the smallest adbd takes 4096 bytes."""

_SECTION: Final = "@@swipe "
_CHIP: Final = ("ro.soc.manufacturer", "ro.soc.model")
_PROPERTIES: Final = (
    "ro.product.model",
    "ro.product.cpu.abi",
    "ro.build.version.sdk",
    "ro.build.fingerprint",
    *_CHIP,
    "ro.board.platform",
    "ro.hardware",
    "ro.kernel.qemu",
    "ro.boot.qemu",
)
ABI_OF_MACHINE: Final = {
    "amd64": "x86_64",
    "aarch64": "arm64-v8a",
    "arm64": "arm64-v8a",
    "armv7l": "armeabi-v7a",
    "armv8l": "armeabi-v7a",
    "x86_64": "x86_64",
    "i686": "x86",
}
"""What Android calls a processor, by what a machine calls it."""
_ABIS_OF_KERNEL: Final = {
    "aarch64": ("arm64-v8a", "armeabi-v7a"),
    "arm": ("armeabi-v7a",),
    "armv7l": ("armeabi-v7a",),
    "x86_64": ("x86_64", "x86"),
    "i686": ("x86",),
}
"""What a kernel's processor executes by itself."""

_VIRTUAL_HARDWARE: Final = ("ranchu", "goldfish", "cutf", "vsoc", "vbox")
_CPU_ZONE: Final = re.compile(
    r"(?<!g)cpu|x86_pkg|coretemp|^(big|mid|little)$|^soc\b", re.IGNORECASE
)
_ZONE_MC: Final = range(1_000, 200_000)
"""Thousandths of a degree that a working zone shows; others are zones switched off, or units of a
vendor's own."""
_MOST_STATUS: Final = 6


def facts_script(folder: str, sysfs: str = "/sys") -> str:
    """Shell script whose output `parse_facts` reads.

    Args:
        folder: absolute; the free space is that of its file system. It need not exist yet.
        sysfs: where the kernel shows itself.
    """
    cpus = f"{sysfs}/devices/system/cpu"
    return f"""exec 2>/dev/null
s() {{ echo; echo "{_SECTION}$1"; }}
s props; for p in {" ".join(_PROPERTIES)}; do echo "$p=$(getprop $p)"; done
s machine; uname -m
s kernel; cat /proc/sys/kernel/arch
s linker; ls /system/bin/linker64 /system/bin/linker
s product; cat {sysfs}/devices/virtual/dmi/id/product_name
s governors; cat {cpus}/cpu[0-9]*/cpufreq/scaling_governor
s max; for c in {cpus}/cpu[0-9]*; do echo "${{c##*/}} $(cat $c/cpufreq/cpuinfo_max_freq)"; done
s df; d={shlex.quote(folder)}; while [ ! -d "${{d:-/}}" ]; do d="${{d%/*}}"; done; df -k "${{d:-/}}"
s cpuinfo; cat /proc/cpuinfo
exit 0"""


def thermal_script(sysfs: str = "/sys") -> str:
    """Shell script whose output `parse_thermal` reads; `sysfs` as for `facts_script`."""
    return f"""exec 2>/dev/null
s() {{ echo; echo "{_SECTION}$1"; }}
s service; dumpsys thermalservice
s battery; dumpsys battery
s zones; for z in {sysfs}/class/thermal/thermal_zone*; do
t= v=; read -r t <$z/type; read -r v <$z/temp; echo "${{z##*/}} $v $t"; done
s max; for c in {sysfs}/devices/system/cpu/cpu[0-9]*; do
v=; read -r v <$c/cpufreq/scaling_max_freq; echo "${{c##*/}} $v"; done
exit 0"""


def parse_facts(text: str, kind: str, serial: str) -> Facts:
    """The facts in the output of `facts_script`; an ABI that is not said is "unknown"."""
    section = _sections(text)
    props = parse_properties(section("props"))
    cpuinfo = parse_cpuinfo(section("cpuinfo"))
    machine = section("machine").strip()
    abi = props.get("ro.product.cpu.abi") or ABI_OF_MACHINE.get(machine) or "unknown"
    chip = " ".join(
        props[name] for name in ("ro.soc.manufacturer", "ro.soc.model") if name in props
    )
    named = (cpuinfo.get("Hardware"), props.get("ro.board.platform"), cpuinfo.get("model name"))
    return Facts(
        kind=kind,
        serial=serial,
        model=props.get("ro.product.model") or _line(section("product")),
        abi=abi,
        sdk=_integer(props.get("ro.build.version.sdk", "")),
        android=bool(section("linker").strip()),
        soc=chip or next((name for name in named if name), None),
        build=props.get("ro.build.fingerprint"),
        governors=tuple(sorted(set(section("governors").split()))),
        cpu_max_khz=tuple(parse_khz(section("max")).values()),
        free_bytes=parse_df(section("df")),
        emulated=_emulation(props, cpuinfo, abi, section("kernel").strip()),
    )


def parse_thermal(text: str) -> Thermal:
    """The readings in the output of `thermal_script`."""
    section = _sections(text)
    battery = parse_pairs(section("battery"), ":")
    return Thermal(
        status=parse_status(section("service")),
        battery_c=_battery_c(battery),
        zones_mc=dict(parse_zones(section("zones")) or parse_hal_zones(section("service"))),
        max_khz=parse_khz(section("max")),
        charging=_charging(battery),
    )


def _sections(text: str) -> Callable[[str], str]:
    """Look-up of a section's text by its name, empty where there is none."""
    found: dict[str, str] = {}
    for piece in text.replace("\r\n", "\n").split("\n" + _SECTION)[1:]:
        name, _, content = piece.partition("\n")
        found.setdefault(name.strip(), content)
    return lambda name: found.get(name, "")


def parse_pairs(text: str, separator: str) -> dict[str, str]:
    """Lines of "key<separator>value", first ones first, both stripped; empty values left out."""
    pairs: dict[str, str] = {}
    for line in text.splitlines():
        key, found, value = line.partition(separator)
        if found and value.strip():
            pairs.setdefault(key.strip(), value.strip())
    return pairs


def parse_properties(text: str) -> dict[str, str]:
    """Properties as ``name=value`` lines; those that are empty or "unknown" are not known."""
    return {name: value for name, value in parse_pairs(text, "=").items() if value != "unknown"}


def parse_cpuinfo(text: str) -> dict[str, str]:
    """The first value of each field of /proc/cpuinfo."""
    return parse_pairs(text, ":")


def parse_khz(text: str) -> dict[int, int]:
    """Frequencies of lines like "cpu4 2400000" by the CPU's number, in order; CPUs that are off or
    show nothing are left out."""
    found: dict[int, int] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"cpu([0-9]{1,4}) +([0-9]{1,9})", line.strip())
        if match is not None:
            found[int(match[1])] = int(match[2])
    return dict(sorted(found.items()))


def parse_df(text: str) -> int | None:
    """Free bytes in the output of ``df -k`` for one folder, also when its line is broken in two."""
    head, _, rest = text.strip().partition("\n")
    if not re.search(r"\b(1K|1024)-blocks\b.*\bAvail", head):
        return None
    match = re.search(r"(?:^|\s)[0-9]+\s+[0-9]+\s+([0-9]{1,15})\s+[0-9]+%(?:\s|$)", rest)
    return None if match is None else int(match[1]) * 1024


def parse_status(text: str) -> int | None:
    """Android's thermal status in ``dumpsys thermalservice``; Android 9 and older have none."""
    match = re.search(r"^\s*Thermal Status:\s*([0-9])\s*$", text, re.MULTILINE)
    return int(match[1]) if match is not None and int(match[1]) <= _MOST_STATUS else None


def parse_hal_zones(text: str) -> Mapping[str, int]:
    """CPU temperatures that ``dumpsys thermalservice`` has from the hardware now.

    Its cached ones may be of long ago. Vendors number the types each in their own way, so a name
    counts as well.
    """
    _, _, current = text.partition("Current temperatures from HAL:")
    zones: dict[str, int] = {}
    for line in current.splitlines()[1:]:
        match = re.fullmatch(
            r"\s*Temperature\{mValue=(-?[0-9]{1,6}(?:\.[0-9]{1,9})?), mType=(-?[0-9]{1,3}), "
            r"mName=([^,}]*), mStatus=[^}]*\}\s*",
            line,
        )
        if match is None:
            if "Temperature{" not in line:
                break
            continue
        value_mc = round(float(match[1]) * 1000)
        if (match[2] == "0" or _CPU_ZONE.search(match[3])) and value_mc in _ZONE_MC:
            zones.setdefault(match[3], value_mc)
    return MappingProxyType(zones)


def parse_zones(text: str) -> Mapping[str, int]:
    """CPU temperatures of lines like "thermal_zone3 45100 cpu-0-1-usr"; zones that share a name
    are told apart by their folder."""
    zones: dict[str, int] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(thermal_zone[0-9]{1,4}) (-?[0-9]{1,9}) (\S.*)", line.strip())
        if match is not None and _CPU_ZONE.search(match[3]) and int(match[2]) in _ZONE_MC:
            name = match[3] if match[3] not in zones else f"{match[3]} ({match[1]})"
            zones[name] = int(match[2])
    return MappingProxyType(zones)


def _battery_c(battery: Mapping[str, str]) -> float | None:
    """Of ``dumpsys battery``, which counts tenths of a degree; None where no battery is."""
    tenths = _integer(battery.get("temperature", ""))
    if tenths is None or battery.get("present") == "false":
        return None
    return tenths / 10


def _charging(battery: Mapping[str, str]) -> bool | None:
    sources = [value for key, value in battery.items() if key.endswith(" powered")]
    known = [value == "true" for value in sources if value in ("true", "false")]
    return any(known) if known else None


def _emulation(
    props: Mapping[str, str], cpuinfo: Mapping[str, str], abi: str, kernel: str
) -> str | None:
    """Why latency there says nothing about hardware."""
    for name in ("ro.kernel.qemu", "ro.boot.qemu"):
        if props.get(name) == "1":
            return f"{name} is 1: Android's emulator"
    hardware = [props.get("ro.hardware", ""), cpuinfo.get("Hardware", "")]
    for name in hardware:
        if name.lower().startswith(_VIRTUAL_HARDWARE):
            return f"its hardware is {name}: a virtual device"
    if "QEMU TCG" in cpuinfo.get("model name", ""):
        return "its processor is QEMU's interpreter"
    if kernel in _ABIS_OF_KERNEL and abi not in _ABIS_OF_KERNEL[kernel]:
        return f"its kernel is of {kernel}, its programs of {abi}: a translator executes them"
    return None


def _integer(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None


def _line(text: str) -> str | None:
    """The first line that holds something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), None)
