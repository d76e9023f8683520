"""What an export starts from: a proven checkpoint, chosen swipes, and PyTorch's answers to them.

It takes seconds and needs torch, and depends on nothing but the request's inputs, so it is kept in
the cache: when all of them hash as before, neither the checkpoint nor a swipe is read again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from exporter import fingerprint
from exporter.cache import Cache, key_of
from exporter.manifest import VERIFICATION
from swipe.errors import GateError
from swipe.files import sha256_file

if TYPE_CHECKING:
    from exporter.bundle import Request
    from exporter.samples import Samples
    from train.checkpoint import Checkpoint

SAMPLES: Final = "samples.npz"


@dataclass(frozen=True, slots=True)
class Prepared:
    """All JSON types, since it is kept as such.

    Attributes:
        source: fields of `exporter.manifest.Source`, but for what the user decided.
        views: every `exporter.manifest.ViewEntry`, as fields.
        said: what the user is told of it.
        checkpoint_sha256: of the file that was loaded, taken before that.
    """

    source: dict[str, Any]
    views: list[dict[str, Any]]
    said: list[str]
    checkpoint_sha256: str


def recall_or_prepare(
    request: Request,
    checkpoint: Path,
    folder: Path,
    cache: Cache | None,
    environment: dict[str, str],
    say: Callable[[str], None],
) -> Prepared:
    """Prepare in `folder`, or fetch what an earlier export of the same inputs prepared.

    Args:
        request: what the user asked for.
        checkpoint: the file of its weights.
        folder: gets ``samples.npz`` for the workers, and ``verification.npz`` for the bundle.
        cache: earlier results; None to use and keep none.
        environment: `exporter.fingerprint.environment`.
        say: told what is used.

    Raises:
        UsageError: the checkpoint, data or lexicon cannot be used.
        GateError: the checkpoint was refused.
    """
    key = None if cache is None else _key(request, checkpoint, environment)
    kept = None if cache is None or key is None else cache.recall(key, folder)
    prepared = Prepared(**kept) if kept is not None else _prepare(request, checkpoint, folder)
    for line in prepared.said:
        say(line)
    if kept is not None:
        say("the same checkpoint, swipes, lexicon and code as before: taken from the cache")
    elif cache is not None and key is not None:
        cache.keep(key, asdict(prepared), [folder / SAMPLES, folder / VERIFICATION])
    return prepared


def _key(request: Request, checkpoint: Path, environment: dict[str, str]) -> str:
    """The key of everything that shapes the preparation."""
    presets = [*checkpoint.parent.glob(f"{checkpoint.stem}.*preset.json")]
    named = [] if request.preset is None else [request.preset]
    return key_of(
        {
            "kind": "preparation",
            "environment": environment,
            "checkpoint": fingerprint.checkpoint(checkpoint),
            "data": fingerprint.content(request.data),
            "lexicon": fingerprint.content(request.lexicon),
            "presets": [fingerprint.content(str(path)) for path in sorted(presets)],
            "preset": [fingerprint.content(str(path)) for path in named],
            "samples": request.samples,
        }
    )


def _prepare(request: Request, checkpoint: Path, folder: Path) -> Prepared:
    """Load and prove everything, and write the swipes into `folder`."""
    from exporter.samples import choose_samples
    from exporter.views import VIEWS
    from swipe.layout import Layout
    from swipe.lexicon import load_lexicon
    from swipe.presets import choose_preset
    from train.checkpoint import load_checkpoint
    from train.finite import null_for_nonfinite

    sha256 = sha256_file(checkpoint)
    loaded = load_checkpoint(checkpoint)
    lexicon = load_lexicon(request.lexicon)
    weights = loaded.weights_sha256
    chosen = choose_preset(request.preset, checkpoint, weights, lexicon)
    samples = choose_samples(
        request.data, loaded.data, Layout.from_contract(loaded.contract), request.samples
    )
    said = [
        f"checkpoint {request.checkpoint}: step {loaded.step:,}, proven finite",
        chosen.origin,
        f"verifying on {len(samples.verification):,} swipes, calibrating on "
        f"{len(samples.calibration)} of other writers: {samples.label}",
    ]
    rounding = _write_samples(folder, loaded, samples)
    source = {
        "checkpoint_step": loaded.step,
        "weights_sha256": weights,
        "contract_id": loaded.contract.contract_id,
        "contract": json.loads(loaded.contract.to_json()),
        "parameters": sum(p.numel() for p in loaded.model().parameters()),
        "trained_on": dict(loaded.data),
        "swipes": samples.label,
        "calibration_swipes": len(samples.calibration),
        "verification_swipes": len(samples.verification),
        "verification_sha256": sha256_file(folder / VERIFICATION),
        "lexicon": request.lexicon,
        "lexicon_sha256": lexicon.sha256,
        "decoder": null_for_nonfinite(asdict(chosen.settings)),
        "preset": None if chosen.tuned is None else chosen.tuned.to_dict(),
        "reference_rounding": rounding,
    }
    views = [view.describe(loaded.contract).model_dump(mode="json") for view in VIEWS]
    return Prepared(source, views, said, sha256)


def _write_samples(folder: Path, checkpoint: Checkpoint, samples: Samples) -> float:
    """Swipes and PyTorch's answers: all for the workers, the verification part to keep.

    Returns the rounding error of those answers.
    """
    from swipe.features import feature_batch
    from train.evaluate import predict, rounding_error

    features = feature_batch(samples.verification)
    words = np.array([g.word for g in samples.verification])
    # Numbers, not names: who made a swipe matters, who they are does not.
    _, writers = np.unique([g.writer for g in samples.verification], return_inverse=True)
    logits = predict(checkpoint.model(), checkpoint.contract, features)
    if (logits.argmax(axis=-1) == checkpoint.contract.blank).all():
        raise GateError(
            "the model answers nothing but blank, so no artefact could be compared with it",
            fix="train longer: swipe-train eval shows when it has learnt to spell",
        )
    np.savez(
        folder / SAMPLES,
        calibration=feature_batch(samples.calibration),
        features=features,
        words=words,
        writers=writers,
        logits=logits,
    )
    np.savez_compressed(folder / VERIFICATION, features=features, words=words, writers=writers)
    return rounding_error(checkpoint.model(), checkpoint.contract, features, logits)
