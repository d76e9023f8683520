"""What the artefacts of a published bundle were judged by, opened again to judge them once more.

The same checkpoint, swipes, lexicon and decoder settings: ``swipe-bench`` and
``swipe-export verify --deep`` answer the question that the export answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exporter.evidence import Evidence
from exporter.ladder import Say
from exporter.manifest import CHECKPOINT, VERIFICATION, Manifest, Source
from exporter.views import VIEWS
from exporter.words import Words
from swipe.errors import GateError, UsageError
from swipe.files import sha256_file
from swipe.lexicon import WORDFREQ, Lexicon, load_lexicon

if TYPE_CHECKING:
    from train.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True, eq=False)
class Reopened:
    """A bundle's evidence.

    Attributes:
        checkpoint: the weights, proven to be the manifest's.
        lexicon: what decoded.
        evidence: what artefacts are judged by, for each view.
        rounding: error of PyTorch's own float32 answers, measured here.
    """

    checkpoint: Checkpoint
    lexicon: Lexicon
    evidence: Mapping[str, Evidence]
    rounding: float


def reopen(folder: Path, manifest: Manifest, lexicon: str | None, say: Say) -> Reopened:
    """Answer the bundle's verification swipes with PyTorch, as the export did.

    Args:
        folder: the bundle.
        manifest: its manifest.
        lexicon: lexicon to decode with; None: the one it was judged with.
        say: told what is going on.

    Raises:
        UsageError: a file, or the lexicon, is not here.
        GateError: the checkpoint, the swipes or the lexicon are not the manifest's.
    """
    from swipe.decode import BeamDecoder
    from swipe.presets import settings_of
    from train.checkpoint import load_checkpoint
    from train.evaluate import predict, rounding_error

    source = manifest.source
    checkpoint = load_checkpoint(folder / CHECKPOINT)
    if checkpoint.weights_sha256 != source.weights_sha256:
        raise GateError(
            f"{folder / CHECKPOINT} is not the checkpoint the manifest speaks of",
            fix="export again",
        )
    features, truths, writers = read_verification(folder, source)
    known = open_lexicon(folder, source, lexicon)
    preset = source.preset
    if preset is not None and known.sha256 != source.lexicon_sha256:
        say("decoding with the default settings: the bundle's preset is for its own lexicon")
        preset = None
    decode = BeamDecoder(known, settings_of(preset, known)).decode_words
    say(f"PyTorch on {len(truths):,} swipes")
    model, contract = checkpoint.model(), checkpoint.contract
    logits = predict(model, contract, features)
    rounding = source.reference_rounding
    words = Words(truths, writers, decode)
    evidence = {
        view.name: view.evidence(checkpoint, features, logits, words, rounding) for view in VIEWS
    }
    measured = rounding_error(model, contract, features, logits)
    return Reopened(checkpoint, known, evidence, measured)


def read_verification(
    folder: Path, source: Source
) -> tuple[NDArray[np.float32], list[str], list[str]]:
    """Features ``[N, 2, 64]``, words and writers of the bundle's verification swipes.

    Raises:
        GateError: they are not the swipes that the manifest speaks of.
    """
    path = folder / VERIFICATION
    if not path.is_file() or sha256_file(path) != source.verification_sha256:
        raise GateError(
            f"{path} does not hold the swipes the manifest speaks of", fix="export again"
        )
    with np.load(path) as samples:
        return samples["features"], samples["words"].tolist(), samples["writers"].tolist()


def open_lexicon(folder: Path, source: Source, named: str | None) -> Lexicon:
    """The lexicon that was `named`, or the one the bundle in `folder` was judged with.

    A manifest holds no path of another machine: a file is looked for in the current folder, in the
    bundle and beside it.

    Raises:
        UsageError: it is not here.
        GateError: none was named, and what is found is another.
    """
    if named is not None:
        return load_lexicon(named)
    places = [Path(source.lexicon), folder / source.lexicon, folder.parent / source.lexicon]
    found = next((str(place) for place in places if place.is_file()), None)
    if found is None and source.lexicon.partition(":")[0] != WORDFREQ:
        raise UsageError(
            f"lexicon {source.lexicon}, which the bundle was judged with, is not here",
            fix=f"name it with --lexicon; its hash is {source.lexicon_sha256}",
        )
    lexicon = load_lexicon(found or source.lexicon)
    if lexicon.sha256 != source.lexicon_sha256:
        raise GateError(
            f"lexicon {source.lexicon} is not the one the bundle was judged with",
            fix="bring back that lexicon, name another with --lexicon, or export again",
        )
    return lexicon
