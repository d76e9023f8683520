"""What checkpoints really hold: odd types, odd layouts, odd records, odd files. None is a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from swipe_train_command import SwipeTrain
from torch import Tensor
from typer.testing import CliRunner

from swipe.errors import GateError, UsageError
from train.cleaning import plan_removals
from train.cli import app
from train.inspection import kinds
from train.inspection.kinds import Kind, find_checkpoints, inspect_file
from train.inspection.verdict import Inspection

NAN = float("nan")
GOOD = torch.arange(12.0).reshape(4, 3)
FLOATS = [
    torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz, torch.float8_e8m0fnu, torch.complex32, torch.complex64, torch.complex128,
]  # fmt: skip


def _saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_is_found_in_every_type_and_sound_values_are_not_accused(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    sound = torch.ones(4).to(dtype)
    bad = torch.tensor([1.0, 2.0, NAN, 1.0]).to(dtype)
    assert inspect_file(_saved(tmp_path / "sound.pt", {"w": sound}), stats=True).valid
    found = inspect_file(_saved(tmp_path / "bad.pt", {"a": GOOD, "w": bad}), stats=True)
    assert found.reasons == ("not finite: w: 1 NaN and 0 Inf of 4 values",)
    if dtype not in (torch.complex32, torch.complex128):  # safetensors has no name for them
        save_file({"w": bad, "a": GOOD}, tmp_path / "bad.safetensors")
        save_file({"w": sound}, tmp_path / "sound.safetensors")
        assert not inspect_file(tmp_path / "bad.safetensors").valid
        assert inspect_file(tmp_path / "sound.safetensors").valid


def _per_channel(scale: float) -> Tensor:
    scales = torch.tensor([0.1, scale, 0.1, 0.1])
    return torch.quantize_per_channel(
        GOOD, scales, torch.zeros(4, dtype=torch.long), 0, torch.qint8
    )


@pytest.mark.filterwarnings("ignore:Sparse CS", "ignore:torch.quantize_per")
@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda x: torch.tensor([[0, x], [1, 0]]).to_sparse(), "w.values"),
        (lambda x: torch.tensor([[0, x], [1, 0]]).to_sparse_csr(), "w.values"),
        (lambda x: torch.tensor([[0, x], [1, 0]]).to_sparse_csc(), "w.values"),
        (lambda x: torch.quantize_per_tensor(GOOD, x, 0, torch.qint8), "w.scale"),
        (_per_channel, "w.scales"),
        (lambda x: torch.nn.Parameter(torch.tensor([x])), "w"),
        (lambda x: torch.tensor([1.0, x]).to(torch.complex64).conj(), "w"),
    ],
    ids=["coo", "csr", "csc", "quantized", "per channel", "parameter", "conjugate"],
)
def test_nan_is_found_in_every_layout(tmp_path: Path, make: Any, part: str) -> None:
    assert inspect_file(_saved(tmp_path / "sound.pt", {"w": make(0.5)}), stats=True).valid
    (reason,) = inspect_file(_saved(tmp_path / "bad.pt", {"w": make(NAN)})).reasons
    assert reason.startswith(f"not finite: {part}: 1 NaN")


def test_a_tensor_without_values_is_not_a_checkpoint(tmp_path: Path) -> None:
    found = inspect_file(_saved(tmp_path / "meta.pt", {"w": torch.ones(3, device="meta")}))
    assert found.reasons == ("w has a shape but no values (device meta)",)
    assert found.sha256 is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e4m3fn, torch.complex64, torch.int8])
def test_a_tensor_of_no_elements_is_nothing_bad(tmp_path: Path, dtype: torch.dtype) -> None:
    empty = {"w": torch.zeros(0, 4).to(dtype)}
    save_file(empty, tmp_path / "empty.safetensors")
    assert inspect_file(tmp_path / "empty.safetensors", stats=True).valid
    assert inspect_file(_saved(tmp_path / "empty.pt", empty), stats=True).valid


def test_moments_are_found_however_deep(tmp_path: Path) -> None:
    state = {"optimizers": [{"state": {0: {"slots": [GOOD, {"v": torch.tensor([NAN])}]}}}]}
    (reason,) = inspect_file(_saved(tmp_path / "last.ckpt", state)).reasons
    assert "optimizers.0.state.0.slots.1.v" in reason


def test_a_square_root_of_a_negative_number_is_warned_of(tmp_path: Path) -> None:
    bad = {"norm.running_var": torch.tensor([1.0, -1.0]), "w": -GOOD}
    found = inspect_file(_saved(tmp_path / "x.pt", bad))
    assert found.valid
    assert found.warnings == (
        "norm.running_var has values down to -1, and its square root is taken",
    )


def test_nothing_but_zeros_is_warned_of(tmp_path: Path) -> None:
    found = inspect_file(_saved(tmp_path / "x.pt", {"w": torch.zeros(9), "n": torch.tensor(3)}))
    assert found.warnings == ("every floating-point value in it is zero",)


def test_statistics_are_those_of_all_values(tmp_path: Path) -> None:
    values = torch.randn(9_000_000, generator=torch.Generator().manual_seed(1))
    values[-1] = 9.0
    (row,) = inspect_file(_saved(tmp_path / "x.pt", {"w": values}), stats=True).stats
    assert (row.minimum, row.maximum) == (float(values.min()), 9.0)
    assert row.mean == pytest.approx(float(values.double().mean()), abs=1e-9)
    assert row.std == pytest.approx(float(values.double().std(correction=0)), rel=1e-9)
    extreme = {"w": torch.tensor([1e300, -1e300], dtype=torch.float64)}
    (row,) = inspect_file(_saved(tmp_path / "y.pt", extreme), stats=True).stats
    assert (row.mean, row.std) == (0.0, 1e300)


BAD_RECORDS = [
    {"val_loss": "nan"}, {"history": [{"loss": NAN}]}, {"trainLoss": [1.0, 4.9e12]},
    {"best/val_loss": -1e300}, {"loss": 10**400}, {"metrics": '{"history": [{"loss": NaN}]}'},
    {"loss": torch.tensor(4.9e12)}, {"losses": torch.tensor([1.0, 1e9])},
    {"losses": {"ctc": float("inf")}},
]  # fmt: skip
GOOD_RECORDS = [
    {"val_loss": "0.3"}, {"loss_scale": 2.0**40}, {"lossless": "infinity"}, {"use_loss": True},
    {"loss_fn": "nan"}, {"loss_weights": [1e9]}, {"loss": None}, {"loss": "{not json"},
    {"gloss": NAN}, {"loss_step": 10**9}, {"loss": torch.tensor(0.25)},
]  # fmt: skip


@pytest.mark.parametrize("record", BAD_RECORDS, ids=str)
def test_a_recorded_loss_is_found_wherever_it_stands(tmp_path: Path, record: Any) -> None:
    found = inspect_file(_saved(tmp_path / "x.pt", {"w": GOOD, **record}))
    assert "recorded " in found.reasons[0]


@pytest.mark.parametrize("record", GOOD_RECORDS, ids=str)
def test_what_only_sounds_like_a_loss_is_none(tmp_path: Path, record: Any) -> None:
    assert inspect_file(_saved(tmp_path / "x.pt", {"w": GOOD, **record})).valid


def test_the_metadata_of_safetensors_is_looked_into(tmp_path: Path) -> None:
    metadata = {"notes": "[draft", "metrics": json.dumps({"history": [{"loss": NAN}]})}
    save_file({"w": GOOD}, tmp_path / "x.safetensors", metadata)
    found = inspect_file(tmp_path / "x.safetensors")
    assert found.reasons == ("recorded metrics.history.0.loss is nan",)


def test_a_flipped_bit_in_a_torch_archive_is_found(tmp_path: Path) -> None:
    """torch loads it without a word."""
    path = _saved(tmp_path / "x.pt", {"w": torch.ones(1000)})
    data = bytearray(path.read_bytes())
    data[data.find(torch.ones(100).numpy().tobytes()) + 40] ^= 1
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["w"].shape == (1000,)
    (reason,) = inspect_file(path).reasons
    assert reason.startswith("it was altered after it was written: x/data/0")


def test_an_archive_saved_without_checksums_is_not_accused(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = _saved(tmp_path / "x.pt", {"w": GOOD})
    finally:
        torch.serialization.set_crc32_options(True)
    assert inspect_file(path).valid


def test_a_file_that_contains_itself_is_invalid(tmp_path: Path) -> None:
    content: dict[str, Any] = {"w": GOOD}
    content["again"] = content
    assert inspect_file(_saved(tmp_path / "x.pt", content)).reasons == (
        "it contains itself, or is nested too deeply",
    )


def test_programs_and_strangers_are_refused_as_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "venv.pth").write_text("import site\n")
    _saved(tmp_path / "module.pt", torch.nn.Linear(2, 2))
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "link.ckpt").symlink_to("gone.ckpt")
    expected = {
        "venv.pth": "not a torch file at all",
        "module.pt": "a pickle that needs code to be run: "
        "Unsupported global: GLOBAL torch.nn.modules.linear.Linear",
        "folder.pt": "it is a folder, not a file",
        "link.ckpt": "a link to a file that is not there",
    }
    assert [p.name for p in find_checkpoints(tmp_path)] == sorted(expected)
    for name, reason in expected.items():
        found = inspect_file(tmp_path / name)
        assert (found.reasons, found.refused) == ((reason,), True)


def test_what_cannot_be_read_is_unchecked_not_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _saved(tmp_path / "x.pt", {"w": GOOD})

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "open", denied)
    found = inspect_file(path)
    assert (found.verdict, found.missing) == ("UNCHECKED", False)
    assert found.unchecked == "it cannot be read: Permission denied"


def test_a_folder_that_cannot_be_looked_into_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    _saved(tmp_path / "x.pt", {"w": GOOD})
    scan = os.scandir

    def guarded(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, os.strerror(13))
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert [p.name for p in find_checkpoints(tmp_path)] == ["closed", "x.pt"]
    assert inspect_file(tmp_path / "closed").verdict == "UNCHECKED"


def test_links_to_folders_hidden_folders_and_environments_are_passed_over(tmp_path: Path) -> None:
    for name in ("run", ".cache", "env/lib"):
        (tmp_path / name).mkdir(parents=True)
        _saved(tmp_path / name / "x.pt", {"w": GOOD})
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    (tmp_path / "latest").symlink_to("run")
    assert find_checkpoints(tmp_path) == [tmp_path / "run" / "x.pt"]


PEAK = """
import sys, threading, time
from pathlib import Path
from train.inspection.kinds import inspect_file

def used():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])

peak, ended = 0, False
def watch():
    global peak
    while not ended:
        peak = max(peak, used())
        time.sleep(0.002)

inspect_file(Path(sys.argv[2]))
before = used()
thread = threading.Thread(target=watch)
thread.start()
assert inspect_file(Path(sys.argv[1])).valid
ended = True
thread.join()
print(peak - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.slow
def test_a_large_file_is_not_held_in_memory(tmp_path: Path, suffix: str) -> None:
    big = {f"w{i:02}": torch.full((2048, 4096), 0.5) for i in range(8)}
    path, small = tmp_path / f"big{suffix}", _saved(tmp_path / "small.pt", {"w": GOOD})
    if suffix == ".pt":
        torch.save(big, path)
    else:
        save_file(big, path)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, path, small], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < path.stat().st_size / 2


def test_a_value_repeated_by_expand_does_not_fill_the_memory(tmp_path: Path) -> None:
    wide = torch.ones(1).expand(10**12)
    found = inspect_file(_saved(tmp_path / "x.pt", {"w": wide}), stats=True)
    assert found.valid
    assert found.values == 1


def _raw(path: Path, dtype: str, size: int) -> Path:
    """A whole safetensors file of 16 zeros of a type, which need not be one that torch knows."""
    entry = {"dtype": dtype, "shape": [16], "data_offsets": [0, size]}
    header = json.dumps({"w": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    return path


@pytest.mark.parametrize(
    ("dtype", "size", "says"),
    [("F4", 8, "torch cannot compute with w of float4_e2m1fn_x2"), ("F6_E2M3", 12, "F6_E2M3")],
)
def test_a_type_that_cannot_be_computed_with_is_unchecked_and_the_others_are_looked_at(
    tmp_path: Path, dtype: str, size: int, says: str
) -> None:
    """What is whole, but cannot be looked into, is not proven broken either."""
    odd = _raw(tmp_path / "odd.safetensors", dtype, size)
    save_file({"w": torch.tensor([NAN])}, tmp_path / "bad.safetensors")
    found = inspect_file(odd, stats=True)
    assert (found.verdict, found.reasons, found.warnings) == ("UNCHECKED", (), ())
    assert says in found.unchecked
    assert found.mend.startswith("check it with a newer ")
    plan = plan_removals(tmp_path)
    assert [finding.path.name for finding in plan.removals] == ["bad.safetensors"]
    assert [finding.path.name for finding in plan.left] == ["odd.safetensors"]
    done = CliRunner().invoke(app, ["check", "--all", str(tmp_path)])
    assert isinstance(done.exception, GateError)
    assert "UNCHECKED" in done.stdout


def test_nan_beside_a_type_that_cannot_be_computed_with_is_found(tmp_path: Path) -> None:
    odd = torch.zeros(8, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    found = inspect_file(_saved(tmp_path / "x.pt", {"a": odd, "b": torch.tensor([NAN])}))
    assert found.reasons == ("not finite: b: 1 NaN and 0 Inf of 1 values",)


def test_an_inspector_that_torch_fails_leaves_its_file_unchecked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path, stats: bool) -> Inspection:
        raise NotImplementedError("no such kernel\nC++ trace")

    kind = Kind("x", lambda path: True, failing)
    monkeypatch.setattr(kinds, "known_kinds", lambda: (kind,))
    found = inspect_file(tmp_path / "x")
    assert (found.verdict, found.unchecked) == ("UNCHECKED", "it cannot be judged: no such kernel")


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that may be listed, but not entered; root may, so the refusal is played."""
    folder = tmp_path / "closed"
    folder.mkdir()
    _saved(folder / "x.pt", {"w": GOOD})
    stat = os.stat

    def guarded(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path).startswith(f"{folder}/"):
            raise PermissionError(13, os.strerror(13), str(path))
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", guarded)
    return folder


def test_what_lies_in_a_folder_that_may_not_be_entered_is_unchecked(
    tmp_path: Path, closed: Path
) -> None:
    found = inspect_file(closed / "x.pt")
    assert (found.verdict, found.mend) == (
        "UNCHECKED", "check the permissions of the folders it lies in",
    )  # fmt: skip
    assert inspect_file(closed / "x.txt").verdict == "UNCHECKED"
    with pytest.raises(UsageError, match="cannot be looked at: Permission denied"):
        find_checkpoints(closed / "runs")
    _saved(tmp_path / "y.pt", {"w": GOOD})
    assert find_checkpoints(tmp_path) == [closed, tmp_path / "y.pt"]
    assert inspect_file(closed).unchecked == "it cannot be read: Permission denied"
    plan = plan_removals(tmp_path)
    assert (plan.removals, [finding.path for finding in plan.left]) == ((), [closed])


@pytest.mark.parametrize("suffix", [".pt", ".txt", ""])
def test_a_name_too_long_for_a_file_is_no_crash(swipe_train: SwipeTrain, suffix: str) -> None:
    done = swipe_train("check", "n" * 300 + suffix)
    assert done.code == 2
    assert "one of its names is too long to be a file's" in done.err
    for command in (["check", "--all"], ["clean"]):
        assert swipe_train(*command, "n" * 300 + suffix).code == 2
