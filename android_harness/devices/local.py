"""This machine as a device: the same runners and the same folder, without adb.

What it leaves out: the difference to a phone. Files are copied, not linked, and commands go through
``/bin/sh``, so that everything above takes the same path as it does for a phone.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from android_harness.devices import Completed, Facts, Thermal
from android_harness.devices.process import run
from android_harness.devices.readings import (
    facts_script,
    parse_facts,
    parse_thermal,
    thermal_script,
)
from exporter.cache import default_folder
from swipe.errors import MissingError
from swipe.files import replacing


def _own_folder() -> str:
    return str(default_folder() / "device")


@dataclass(frozen=True, slots=True)
class LocalDevice:
    """This machine; see `devices.Device` for the methods.

    Attributes:
        folder: the folder that is ours.
        sysfs: where the kernel shows itself.
    """

    folder: str = field(default_factory=_own_folder)
    sysfs: str = "/sys"

    @property
    def name(self) -> str:
        """ "local"."""
        return "local"

    def shell(
        self, argv: Sequence[str] | str, timeout_s: float = 60, *, tether: bool = False
    ) -> Completed:
        """Run a program to its end, see `devices.Device.shell`."""
        command = argv if isinstance(argv, str) else shlex.join(argv)
        try:
            done = run(["/bin/sh", "-c", command], timeout_s, tether=tether)
        except subprocess.TimeoutExpired as error:
            raise MissingError(
                f"a command did not end within {timeout_s:.0f} s: {command[:80]}",
                fix="measure while the machine is less busy",
            ) from error
        return done if done.code >= 0 else replace(done, code=128 - done.code)

    def push(self, path: Path, remote: str) -> None:
        """Copy a file there."""
        try:
            Path(remote).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, remote)
        except OSError as error:
            raise MissingError(
                f"{path.name} was not copied to {remote}: {error.strerror}",
                fix="choose a writable place with enough free space",
            ) from error

    def pull(self, remote: str, path: Path) -> None:
        """Copy a file from there; `path` is replaced whole or not at all."""
        if not Path(remote).is_file():
            raise MissingError(f"{remote} is not there", fix="run this again")
        with replacing(path) as temporary:
            shutil.copyfile(remote, temporary)

    def facts(self) -> Facts:
        """What it is."""
        return parse_facts(
            self.shell(facts_script(self.folder, self.sysfs)).stdout, "local", "local"
        )

    def thermal(self) -> Thermal:
        """How hot it is now."""
        return parse_thermal(self.shell(thermal_script(self.sysfs)).stdout)
