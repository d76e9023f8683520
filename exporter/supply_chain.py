"""Who made a bundle: an optional signature over the folder, and a bill of materials beside it.

The manifest's hashes detect accidents; only a signature tells a forger's bundle from ours. Both
files lie beside the bundle, ``BUNDLE.sig`` and ``BUNDLE.cdx.json``, so that nothing in it changes.
Signing is with a key of one's own, and needs no network: a sigstore bundle as `model_signing`
writes it, which its own command verifies as well.

What it leaves out: keyless signing and transparency logs, which need accounts and servers.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from exporter.formats.build import first_line, library
from exporter.manifest import BENCH, Manifest
from swipe.errors import GateError, UsageError
from swipe.files import replacing, write_text_atomic

EXTRA: Final = "supply-chain"


def signature_path(bundle: Path) -> Path:
    """Where the signature of `bundle` lies."""
    return _beside(bundle, ".sig")


def bill_path(bundle: Path) -> Path:
    """Where the bill of materials of `bundle` lies."""
    return _beside(bundle, ".cdx.json")


def _beside(bundle: Path, suffix: str) -> Path:
    resolved = bundle.resolve()
    return resolved.with_name(resolved.name + suffix)


def sign(bundle: Path, private_key: Path) -> Path:
    """Sign every file of `bundle` but the bench's with an elliptic-curve key in PEM.

    Raises:
        MissingError: the library is not installed.
        UsageError: the key cannot be used, or the signature cannot be written.
    """
    signing = library("model_signing.signing", EXTRA)
    hashing = library("model_signing.hashing", EXTRA)
    with replacing(signature_path(bundle)) as new:
        try:
            config = signing.Config().use_elliptic_key_signer(private_key=private_key)
            config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[BENCH]))
            config.sign(bundle, new)
        except Exception as error:
            # Any type: the key's reader, the curve and the hashing raise their own.
            raise UsageError(
                f"{bundle} cannot be signed with {private_key}: {first_line(error)}",
                fix="give an unencrypted key: openssl ecparam -name prime256v1 -genkey -noout",
            ) from error
    return signature_path(bundle)


def require_signed(bundle: Path, public_key: Path) -> None:
    """Prove the signature of `bundle` with the public half of the key, in PEM.

    Raises:
        MissingError: the library is not installed.
        UsageError: there is no such key.
        GateError: there is no signature, it is of another key, or a file was changed since.
    """
    verifying = library("model_signing.verifying", EXTRA)
    if not public_key.is_file():
        raise UsageError(f"no key {public_key}", fix="give the public key of who signed, in PEM")
    path = signature_path(bundle)
    if not path.is_file():
        raise GateError(f"no signature {path.name} beside it", fix="sign it: swipe-export sign")
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
        config.verify(bundle, path)
    except Exception as error:
        # Any type: a damaged signature, another key and another file all raise their own.
        raise GateError(
            f"{path.name} does not hold: {first_line(error)}", fix="get it from who signed it"
        ) from error


def write_bill(manifest: Manifest, bundle: Path) -> Path:
    """Write the bill of materials, CycloneDX 1.6: the model and the libraries that built it.

    Raises:
        MissingError: the library is not installed.
    """
    bom = library("cyclonedx.model.bom", EXTRA)
    model = library("cyclonedx.model", EXTRA)
    parts = library("cyclonedx.model.component", EXTRA)
    output = library("cyclonedx.output.json", EXTRA)
    package_url = library("packageurl", EXTRA).PackageURL
    source, newest = manifest.source, manifest.builds[0]
    subject = parts.Component(
        name="swipe-model" if source.kind == "swipe" else "model",
        type=parts.ComponentType.MACHINE_LEARNING_MODEL,
        version=source.weights_sha256[:16],
        bom_ref=f"weights:{source.weights_sha256}",
        hashes=_hashes(model, source.weights_sha256),
        properties=[
            model.Property(name=f"swipe-export:{name}", value=value)
            for name, value in source.identity.items()
        ],
    )
    bill = bom.Bom(
        # Of the content: two bills of one bundle are the same bytes.
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, manifest.model_dump_json()),
        metadata=bom.BomMetaData(
            component=subject, timestamp=datetime.fromisoformat(newest.created)
        ),
        components=[
            parts.Component(
                name=str(rung.file),
                type=parts.ComponentType.FILE,
                bom_ref=f"file:{rung.file}",
                hashes=_hashes(model, rung.sha256),
            )
            for entry in manifest.formats
            for rung in entry.rungs
            if rung.file is not None
        ]
        + [
            parts.Component(
                name=name,
                type=parts.ComponentType.LIBRARY,
                version=version,
                bom_ref=f"build:{number}:{name}",
                purl=package_url("pypi", name=name, version=version),
            )
            for number, build in enumerate(manifest.builds)
            for name, version in build.versions.items()
            if name != "python"
        ],
    )
    bill.register_dependency(subject, [c for c in bill.components if c.purl is not None])
    text = output.JsonV1Dot6(bill).output_as_string(indent=2)
    write_text_atomic(bill_path(bundle), text + "\n")
    return bill_path(bundle)


def _hashes(model: Any, digest: str | None) -> list[Any]:
    algorithm = model.HashAlgorithm.SHA_256
    return [model.HashType(alg=algorithm, content=digest)]
