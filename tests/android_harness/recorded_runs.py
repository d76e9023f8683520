"""Records and results as a device gives them, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from android_harness.devices import Facts
from android_harness.results import DeviceReport, Results, Row
from android_harness.runners.record import Block, Cpus, Engine, Rss, RunRecord, Times
from android_harness.stats import summarize
from exporter.manifest import Verdict

PHONE = Facts("android", "0A1B", "Pixel 9", "arm64-v8a", sdk=35, android=True)
EMULATED = Facts(
    "android", "emulator", "qemu", "arm64-v8a", sdk=34, android=False, emulated="x86_64 kernel"
)


def record(
    latency_ns: tuple[int, ...] = (1000, 1100),
    khz_max: tuple[int | None, ...] = (None,),
    **changes: Any,
) -> RunRecord:
    """A run that went well."""
    blocks = tuple(
        Block(at_ms=float(i), calls=1, temp_mc=None, khz_cur=None, khz_max=khz, cpu=0)
        for i, khz in enumerate(khz_max)
    )
    fields: dict[str, Any] = {
        "schema_name": "swipe-export/runner/1",
        "nonce": "n",
        "ok": True,
        "stage": "done",
        "error": "",
        "engine": Engine(name="onnxruntime", version="1", backend="cpu"),
        "model_sha256": "0" * 64,
        "pid": 7,
        "threads": 1,
        "cpus": Cpus(asked=None, got="0-1"),
        "times_ms": Times(dlopen=1.0, load=2.0, init=3.0, first=4.0),
        "latency_ns": latency_ns,
        "blocks": blocks,
        "rss_kb": Rss(start=1, loaded=2, peak=3),
        "pss_kb": None,
        "outputs": None,
        "telemetry_disabled": True,
        "complete": True,
    }
    return RunRecord(**(fields | changes))


def row(
    name: str = "onnx baked int8",
    rounds: tuple[tuple[int, ...], ...] = ((10_000, 10_100),) * 4,
    score: float = 84.0,
    status: str = "PASS",
    **changes: Any,
) -> Row:
    """A measured artefact."""
    form, view, rung = name.split()
    metrics = {
        "agreement": {"frames": 0.99},
        "scores": {"top1": score},
        "reference_scores": {"top1": 84.0},
        "cost": None,
    }
    verdict = Verdict.model_validate(
        {
            "status": status,
            "level": "device",
            "reasons": [] if status == "PASS" else ["missed"],
            "metrics": metrics,
        }
    )
    fields: dict[str, Any] = {
        "name": name,
        "format": form,
        "view": view,
        "rung": rung,
        "taken": True,
        "sha256": "0" * 64,
        "size_bytes": 100_000,
        "load_ms": (1.0,),
        "first_ms": (1.0,),
        "latency_ns": rounds,
        "latency": summarize(rounds) if rounds else None,
        "verdict": verdict,
    }
    return Row(**(fields | changes))


def results(*rows: Row, facts: Facts = PHONE, **changes: Any) -> Results:
    """Results of one device."""
    fields: dict[str, Any] = {
        "created": "2026-01-01T00:00:00+00:00",
        "versions": {},
        "identity": {"contract_id": "c"},
        "weights_sha256": "0" * 64,
        "samples": "dev",
        "verification_samples": 500,
        "verification_sha256": "0" * 64,
        "lexicon": {},
        "threads": 1,
        "devices": (DeviceReport(facts=facts, rows=rows, skipped={}),),
    }
    return Results(**(fields | changes))
