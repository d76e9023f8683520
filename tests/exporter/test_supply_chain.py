"""Signatures over a bundle: of this key and these files, or refused. No network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("model_signing")
pytest.importorskip("cyclonedx")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from exporter.manifest import load_manifest
from exporter.supply_chain import bill_path, require_signed, sign, signature_path, write_bill
from exporter.verification import Gate, Outcome, verify
from swipe.errors import GateError, UsageError

pytestmark = pytest.mark.slow


def _keys(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


@pytest.fixture
def bundle(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "bundle"))


def test_a_signature_holds_for_these_files_and_this_key_only(bundle: Path, tmp_path: Path) -> None:
    private, public = _keys(tmp_path, "ours")
    _, foreign = _keys(tmp_path, "theirs")
    with pytest.raises(GateError, match="no signature"):
        require_signed(bundle, public)
    sign(bundle, private)
    require_signed(bundle, public)
    (bundle / "bench.json").write_text("{}")
    require_signed(bundle, public)
    with pytest.raises(GateError, match="does not hold"):
        require_signed(bundle, foreign)
    with pytest.raises(UsageError, match="no key"):
        require_signed(bundle, tmp_path / "none.pub")
    (bundle / "report.md").write_text("better")
    with pytest.raises(GateError, match="does not hold"):
        require_signed(bundle, public)


def test_a_forger_who_mends_every_hash_is_refused_by_the_signature(
    bundle: Path, tmp_path: Path
) -> None:
    private, public = _keys(tmp_path, "ours")
    sign(bundle, private)
    manifest = load_manifest(bundle)
    source = manifest.source.model_copy(update={"calibration_sha256": "0" * 64})
    manifest.model_copy(update={"source": source}).save(bundle)
    findings = verify(bundle, deep=False, lexicon=None, say=lambda line: None, public_key=public)
    assert [f.gate for f in findings if f.outcome is Outcome.REFUSED] == [Gate.SIGNED]


def test_a_damaged_signature_is_refused_and_a_bad_key_signs_nothing(
    bundle: Path, tmp_path: Path
) -> None:
    private, public = _keys(tmp_path, "ours")
    with pytest.raises(UsageError, match="cannot be signed"):
        sign(bundle, public)
    assert not signature_path(bundle).exists()
    sign(bundle, private)
    signature_path(bundle).write_text(signature_path(bundle).read_text()[:200])
    with pytest.raises(GateError, match="does not hold"):
        require_signed(bundle, public)


def test_the_bill_lists_weights_files_and_libraries_and_is_reproducible(bundle: Path) -> None:
    manifest = load_manifest(bundle)
    write_bill(manifest, bundle)
    first = bill_path(bundle).read_bytes()
    write_bill(manifest, bundle)
    assert bill_path(bundle).read_bytes() == first
    bill = json.loads(first)
    assert bill["specVersion"] == "1.6"
    weights = bill["metadata"]["component"]["hashes"][0]["content"]
    assert weights == manifest.source.weights_sha256
    listed = {part["name"]: part for part in bill["components"]}
    taken = manifest.formats[0].taken
    assert listed[str(taken.file)]["hashes"][0]["content"] == taken.sha256
    assert listed["torch"]["purl"].startswith("pkg:pypi/torch@2.13.0")
