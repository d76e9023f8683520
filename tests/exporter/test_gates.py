"""Ways in which a check could pass without checking anything: each is closed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from host_bench import bench_host

from android_harness.interleaving import Plan
from exporter.manifest import FILE, SEAL, SwipeSource, digest_of
from exporter.policy import Policy
from swipe.errors import GateError
from swipe.lexicon import load_lexicon
from swipe.presets import DecoderPreset, TunedPreset


def _altered(bundle: Path, **changes: object) -> Path:
    manifest = json.loads((bundle / FILE).read_text())
    for key, value in changes.items():
        (manifest["source"] if key in manifest["source"] else manifest)[key] = value
    del manifest[SEAL]
    (bundle / FILE).write_text(json.dumps({**manifest, SEAL: digest_of(manifest)}))
    return bundle


@pytest.mark.slow
def test_a_bundle_without_artefacts_or_with_another_lexicon_or_preset_is_no_pass(
    released: Path, tmp_path: Path
) -> None:
    from exporter.bundle import Request, export
    from exporter.origins.requests import SwipeRequest
    from exporter.targets import find_target

    bundle = tmp_path / "bundle"
    words = load_lexicon("wordfreq:5000")
    tuned = TunedPreset(
        DecoderPreset(lam=0.3), words.name, words.sha256, "other weights", "none", None, {}
    )
    tuned.save(tmp_path / "preset.json")
    request = Request(
        (find_target("onnx"),),
        SwipeRequest(
            released, ("baked",), "synthetic:1000", "wordfreq:5000", 100, tmp_path / "preset.json"
        ),
        bundle,
        Policy(quantize=False),
    )
    said: list[str] = []
    source = export(request, say=said.append).source
    assert isinstance(source, SwipeSource)
    assert source.preset == tuned.to_dict()
    assert any("preset.json, tuned for other weights" in line for line in said)
    plan = Plan(loads=1, warmup=1, blocks=1, block_calls=1)
    with pytest.raises(GateError, match="is not the one the bundle was judged with"):
        bench_host(_altered(bundle, lexicon="wordfreq:50"), plan, 1, None, lambda line: None)
    _altered(bundle, lexicon="wordfreq:5000")
    foreign = tuned.to_dict() | {"lexicon_sha256": "0" * 64}
    with pytest.raises(GateError, match="was tuned with lexicon"):
        bench_host(_altered(bundle, preset=foreign), plan, 1, None, lambda line: None)
    _altered(bundle, preset=tuned.to_dict())
    with pytest.raises(GateError, match="ships no artefact"):
        bench_host(_altered(bundle, formats=[]), plan, 1, None, lambda line: None)
