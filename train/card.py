"""Model card: what a released model is, what it was trained on, and what was measured of it.

Generated from the files that ``swipe-train eval --json`` and ``swipe-train geometry --json`` write,
so that no figure is typed by hand. Figures of other weights are refused, and seeds that were judged
on other swipes or another lexicon, or are the same weights once more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from swipe.errors import DataError, GateError
from swipe.scoring import KS
from swipe.sources import SYNTHETIC
from train.checkpoint import Checkpoint, load_checkpoint

ATTRIBUTIONS: Final = {
    "how_we_swipe": (
        "How We Swipe: L. A. Leiva, S. Kim, W. Cui, X. Bi, A. Oulasvirta, "
        '"How We Swipe: A Large-scale Shape-writing Dataset and Empirical Findings", '
        "MobileHCI 2021, doi 10.1145/3447526.3472059, data at https://osf.io/sj67f/. "
        "English prompts, half of them sentences and half random words, swiped by volunteers on "
        "their own phones with a QWERTY keyboard."
    ),
    "futo": (
        "FUTO swipe corpus, https://huggingface.co/datasets/futo-org/swipe.futo.org, MIT: "
        "volunteers' swipes on a QWERTY keyboard, collected by FUTO."
    ),
    SYNTHETIC: "Swipes generated from a word list: no person made them.",
}
SEED_KS: Final = ("1", "4")
_EVALUATE: Final = "swipe-train eval --json"
_CARRY: Final = "swipe-train geometry --json"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Facts:
    """Where the card's figures come from.

    Attributes:
        evaluations: files of ``swipe-train eval --json``, one per lexicon, of the model itself.
        seeds: the same of models that differ by their seed only, for the first lexicon.
        geometry: file of ``swipe-train geometry --json``, if any.
        corpora: names in `ATTRIBUTIONS`.
        commands: what trained the model, oldest first.
    """

    evaluations: Sequence[Path]
    corpora: Sequence[str]
    seeds: Sequence[Path] = ()
    geometry: Path | None = None
    commands: Sequence[str] = ()


def model_card(path: Path, facts: Facts) -> str:
    """Markdown of the card of the checkpoint at `path`.

    Raises:
        DataError: a file is not there or not of these commands, or a corpus has no attribution.
        GateError: figures belong to other weights, seeds to other swipes, another lexicon or the
            same weights, or the checkpoint's record tells of generated swipes that `facts` do not.
    """
    checkpoint = load_checkpoint(path)
    evaluations = [
        _of_weights(_read(file), file, checkpoint, _EVALUATE) for file in facts.evaluations
    ]
    if not evaluations:
        raise DataError("a card without figures", fix="give --evaluation, from swipe-train eval")
    seeds = [_comparable(_read(file), file, evaluations[0]) for file in facts.seeds]
    _require_distinct(seeds, facts.seeds, checkpoint)
    _require_corpora(facts.corpora, checkpoint)
    first = facts.evaluations[0]
    parts = [*_identity(path.stem, checkpoint), *_training(facts)]
    for figures, file in zip(evaluations, facts.evaluations, strict=True):
        parts += _shown(_accuracy(figures), file, _EVALUATE)
    tops = [
        _shown(_tops(figures), file, _EVALUATE)
        for figures, file in zip((evaluations[0], *seeds), (first, *facts.seeds), strict=True)
    ]
    parts += _seeds(tops)
    if facts.geometry is not None:
        found = _of_weights(_read(facts.geometry), facts.geometry, checkpoint, _CARRY)
        parts += _shown(_geometry(found), facts.geometry, _CARRY)
    parts += _shown(_limits(evaluations[0]), first, _EVALUATE)
    return "\n".join(parts) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", fix="write it again") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no figures", fix="write it with swipe-train eval --json")
    return found


def _shown(lines: Iterable[T], file: Path, command: str) -> list[T]:
    """What is made of the figures in `file`.

    Raises:
        DataError: they are not those that `command` writes.
    """
    try:
        return list(lines)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} does not hold the figures of {command}: {error!r}",
            fix=f"write it again: {command}",
        ) from error


def _of_weights(
    figures: dict[str, Any], path: Path, checkpoint: Checkpoint, command: str
) -> dict[str, Any]:
    weights = figures.get("weights_sha256")
    if weights != checkpoint.weights_sha256:
        whose = f"figures of other weights ({str(weights)[:16]})"
        raise GateError(
            f"{path} holds {whose if weights else 'figures, but not of which weights they are'}; "
            f"the checkpoint's are {checkpoint.weights_sha256[:16]}",
            fix=f"measure this checkpoint: {command}",
        )
    return figures


def _comparable(
    figures: dict[str, Any], path: Path, reference: Mapping[str, Any]
) -> dict[str, Any]:
    for key in ("lexicon_sha256", "swipes_sha256"):
        if figures.get(key) != reference.get(key):
            raise GateError(
                f"{path} has another {key} than the first evaluation",
                fix="evaluate all seeds on the same swipes with the same lexicon",
            )
    return figures


def _require_distinct(
    seeds: Sequence[Mapping[str, Any]], files: Sequence[Path], checkpoint: Checkpoint
) -> None:
    """Refuse what would narrow the range of seeds by counting a model twice."""
    seen = {checkpoint.weights_sha256}
    for figures, file in zip(seeds, files, strict=True):
        weights = str(figures.get("weights_sha256"))
        if weights in seen:
            raise GateError(
                f"{file} is of no further seed: weights {weights[:16]} are counted already",
                fix="evaluate a model that was trained with another --seed",
            )
        seen.add(weights)


def _require_corpora(corpora: Sequence[str], checkpoint: Checkpoint) -> None:
    unknown = sorted(set(corpora) - ATTRIBUTIONS.keys())
    if unknown or not corpora:
        raise DataError(
            f"no attribution for {', '.join(unknown) or 'the corpus'}",
            fix=f"give --corpus, one of {', '.join(ATTRIBUTIONS)}",
        )
    # The other way round is no contradiction: an earlier stage may have had generated swipes.
    if checkpoint.data.get("synthetic") and SYNTHETIC not in corpora:
        raise GateError(
            "the checkpoint was trained on generated swipes, and no --corpus says so",
            fix=f"add --corpus {SYNTHETIC}",
        )


def _identity(name: str, checkpoint: Checkpoint) -> Iterator[str]:
    contract = checkpoint.contract
    count = sum(p.numel() for p in checkpoint.model().parameters())
    architecture = ", ".join(f"{k} {v}" for k, v in checkpoint.spec.to_dict().items())
    yield f"# {name}: a swipe-typing model\n"
    yield (
        "Reads one swipe over a keyboard and gives CTC scores of its letters; with a lexicon, the "
        "words. Made for keyboards on phones: small, finite, with the keyboard as an input.\n"
    )
    yield "| | |\n|---|---|"
    yield f"| parameters | {count:,} |"
    yield f"| architecture | {architecture} |"
    yield (
        f"| input | `features float32[1, 2, {contract.points}]`, recipe `{contract.features}`; "
        "key centres (folded in for one keyboard, or passed at run time) |"
    )
    yield f"| output | `logits float32[1, {contract.frames}, {contract.classes}]`, blank last |"
    yield f"| contract | `{contract.contract_id}` |"
    yield f"| optimizer steps | {checkpoint.step:,} in the last stage |"
    yield f"| weights SHA-256 | `{checkpoint.weights_sha256}` |\n"


def _training(facts: Facts) -> Iterator[str]:
    yield "## Training\n"
    for corpus in facts.corpora:
        yield f"* {ATTRIBUTIONS[corpus]}"
    if facts.commands:
        yield "\n```console"
        yield from facts.commands
        yield "```"
    yield ""


def _accuracy(figures: Mapping[str, Any]) -> Iterator[str]:
    beam, extended = figures["beam"], figures["extended"]
    yield f"## Accuracy with {figures['lexicon']}\n"
    yield f"{figures['swipes']}. Beam width {figures['preset']['beam_width']}; "
    yield f"{figures['decoder']}. Intervals (95 %) resample writers.\n"
    heads = [f"top-{k} %" for k in KS]
    yield f"| set | swipes | {' | '.join(heads)} | top-1, 95 % |"
    yield "|---|---" + "|---" * len(KS) + "|---|"
    rows = {"strict (unknown words count as misses)": beam["strict"]}
    rows["in vocabulary"] = beam["in_vocabulary"]
    rows["unknown words added to the lexicon"] = extended["strict"] if extended else None
    for name, part in {**rows, **beam["strata"]}.items():
        if part is not None:
            shown = " | ".join(f"{part['top_k'][str(k)]:.2f}" for k in KS)
            yield f"| {name} | {part['n']:,} | {shown} | {_between(part['intervals'].get('1'))} |"
    edits = figures["greedy"]["edits"]
    yield (
        f"\nWithout a lexicon (greedy): {figures['greedy']['strict']['top_k']['1']:.2f} % of the "
        f"words, CER {figures['greedy']['cer']:.2f} % ({edits['substitutions']:,} substitutions, "
        f"{edits['deletions']:,} deletions, {edits['insertions']:,} insertions). "
        f"Worst stratum: {beam['worst_stratum']}."
    )
    yield _compared(figures["contamination"])
    yield (
        f"Lexicon `{figures['lexicon_sha256'][:16]}`, swipes `{figures['swipes_sha256'][:16]}`.\n"
    )


def _compared(check: Mapping[str, Any]) -> str:
    if not check["compared"]:
        return f"Not compared with the training swipes: {check['unchecked']}."
    others = check.get("unchecked")
    return (
        f"Compared with {check['compared']:,} training swipes: no swipe and no writer in common."
        + (f" Not compared with the others: {others}." if others else "")
    )


def _tops(figures: Mapping[str, Any]) -> Iterator[float]:
    for k in SEED_KS:
        yield float(figures["beam"]["strict"]["top_k"][k])


def _seeds(tops: Sequence[Sequence[float]]) -> Iterator[str]:
    """Of each model, the model itself first, its strict accuracy at `SEED_KS`."""
    yield "## Seeds\n"
    if len(tops) == 1:
        yield "Trained once: how much another seed would differ was not measured.\n"
        return
    for k, values in zip(SEED_KS, zip(*tops, strict=True), strict=True):
        mean = sum(values) / len(values)
        yield (
            f"* strict top-{k} of {len(values)} seeds: mean {mean:.2f} %, "
            f"{min(values):.2f} to {max(values):.2f}"
        )
    yield ""


def _geometry(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Other keyboards\n"
    yield (
        f"{found['swipes']:,} swipes carried to keyboards nobody swiped them on (residual "
        f"transplant), strict top-1: as recorded {found['recorded']:.2f} %, "
        + ", ".join(f"{name} {top1:.2f} %" for name, top1 in found["carried"].items())
        + f". With the letters of the keyboard shuffled under them: {found['shuffled']:.2f} %.\n"
    )


def _limits(figures: Mapping[str, Any]) -> Iterator[str]:
    worst = figures["beam"]["worst_stratum"]
    top1 = figures["beam"]["strata"][worst]["top_k"]["1"]
    yield "## Intended use and limits\n"
    yield "* Decoding single words swiped with one finger; a host adds its own context model."
    yield (
        "* English a to z. Other alphabets, other languages' words and two-finger swipes were not "
        "measured."
    )
    yield f"* Weakest on {worst}: {top1:.2f} %."
    yield (
        "* The development swipes chose checkpoint and decoder settings, so figures on them are "
        "slightly too good."
    )
    yield "* Accuracy on other keyboards is of carried swipes, not of people who type on them."


def _between(interval: Mapping[str, float] | None) -> str:
    return f"{interval['low']:.1f} to {interval['high']:.1f}" if interval else "-"
