"""How a checkpoint is judged: on which swipes, after what checks, beside which other model.

The swipes are a corpus, or those that the run held out. Before a figure is computed they are
compared with what the model was trained on (`train.exposure`): a model that has seen its
examination is refused, not scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from swipe.console import make_table
from swipe.corpus import load_corpus
from swipe.errors import DataError
from swipe.features import feature_batch
from swipe.gesture import Gesture
from swipe.layout import Layout
from swipe.lexicon import Lexicon, load_lexicon
from swipe.presets import choose_preset
from swipe.progress import counting
from swipe.prompts import prompt_kind
from swipe.scoring import KS, Paired, compare
from swipe.statistics import LEVEL, RESAMPLES, SEED
from train.checkpoint import Checkpoint, load_checkpoint
from train.config import Data
from train.evaluate import Evaluation, Groups, evaluate_words
from train.exposure import Contamination, check_exposure
from train.runs import checkpoint_file
from train.swipe_data import DEV_WRITERS, is_present, load_swipe_data, sample


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One checkpoint's figures.

    Attributes:
        path: the checkpoint as it was named.
        weights_sha256: hash of its tensors.
        decoder: where the decoder's settings come from.
        evaluation: the figures.
        contamination: what the swipes were compared with.
    """

    path: str
    weights_sha256: str
    decoder: str
    evaluation: Evaluation
    contamination: Contamination

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields, those of the evaluation beside the others."""
        return {
            "checkpoint": self.path,
            "weights_sha256": self.weights_sha256,
            "decoder": self.decoder,
            **self.evaluation.to_dict(),
            "contamination": asdict(self.contamination),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What ``swipe-train eval`` found.

    Attributes:
        judged: the checkpoint asked about.
        against: the one it is compared with, if any.
        comparison: McNemar's test of strict top-k, by k as text; empty without a second model.
        writers: number of writers that intervals resample.
    """

    judged: Judged
    against: Judged | None
    comparison: dict[str, Paired]
    writers: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields, those of the first model on top."""
        return {
            **self.judged.to_dict(),
            "intervals": {
                "method": "percentile bootstrap over writers",
                "level": LEVEL,
                "resamples": RESAMPLES,
                "seed": SEED,
                "writers": self.writers,
            },
            "against": self.against.to_dict() if self.against else None,
            "comparison": {k: asdict(paired) for k, paired in self.comparison.items()},
        }


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """The swipes to judge on.

    Attributes:
        gestures: the swipes.
        label: what to call them.
        trained: what the run trained on, when it was split from the same corpus.
    """

    gestures: Sequence[Gesture]
    label: str
    trained: Sequence[Gesture] | None = None


def evaluate_checkpoint(
    path: Path,
    data: str | None,
    lexicon: str,
    *,
    preset: Path | None = None,
    force_preset: bool = False,
    beam_width: int | None = None,
    limit: int = 0,
    threads: int = 1,
    against: Path | None = None,
    train_data: str | None = None,
) -> Report:
    """Evaluate a checkpoint on a corpus, or on its own run's held-out swipes.

    Args:
        path: a checkpoint or a run folder.
        data: corpus; None for the swipes the run held out.
        lexicon: lexicon specification.
        preset: decoder preset file; None for the one beside each checkpoint, if it fits.
        force_preset: use `preset` with another lexicon too.
        beam_width: of the beam search; None for the preset's.
        limit: at most this many swipes, drawn over all writers; 0 for all.
        threads: torch threads.
        against: a second checkpoint, judged on the same swipes and compared.
        train_data: corpus that the swipes must have nothing in common with; None for what each
            checkpoint's record names, when that still exists.

    Raises:
        GateError: the swipes, or their writers, were trained on.
        SwipeError: checkpoint, data, lexicon or preset cannot be used.
    """
    torch.set_num_threads(threads)
    checkpoint = load_checkpoint(path)
    other = load_checkpoint(against) if against is not None else None
    swipes = held_out(checkpoint, data, limit)
    words = load_lexicon(lexicon)
    groups = Groups(
        [gesture.writer for gesture in swipes.gestures],
        [prompt_kind(gesture) for gesture in swipes.gestures],
    )
    # Both are compared before either is decoded: a refusal should not take minutes.
    found = check_exposure(checkpoint, swipes.gestures, train_data, swipes.trained)
    judge = _Judge(swipes, words, groups, preset, force_preset, beam_width)
    if other is None or against is None:
        return Report(judge(path, checkpoint, found), None, {}, len(set(groups.writers)))
    if other.data != checkpoint.data:
        found_other = check_exposure(other, swipes.gestures, train_data)
    else:
        found_other = found
    first, second = judge(path, checkpoint, found), judge(against, other, found_other)
    paired = compare(first.evaluation.ranks, second.evaluation.ranks, groups.writers)
    return Report(first, second, paired, len(set(groups.writers)))


def held_out(checkpoint: Checkpoint, data: str | None, limit: int) -> HeldOut:
    """The swipes to judge a checkpoint on.

    Args:
        checkpoint: it records what its run trained on.
        data: corpus; None for the swipes the run held out.
        limit: at most this many swipes, drawn over all writers; 0 for all.

    Raises:
        DataError: they are not on this machine, or cannot be read.
    """
    found = _held_out(checkpoint, data)
    if not limit:
        return found
    return replace(found, gestures=sample(found.gestures, limit, 0))


def _held_out(checkpoint: Checkpoint, data: str | None) -> HeldOut:
    layout = Layout.from_contract(checkpoint.contract)
    seed = int(checkpoint.data.get("seed", 0))
    if data is not None:
        # Synthetic swipes are those of other writers than any run trains on.
        corpus = load_corpus(data, layout, seed=seed + 1, first_writer=DEV_WRITERS)
        return HeldOut(corpus.gestures, corpus.summary())
    if not is_present(checkpoint.data):
        raise DataError(
            f"the swipes that the checkpoint's run held out ({checkpoint.data['train']!r}) are not "
            "on this machine, or others by now",
            fix="give swipes with --data",
        )
    # Who is held out is a matter of train and dev: what was mixed in need not be here.
    known = Data.model_fields.keys() - {"mix"}
    fields = {k: v for k, v in checkpoint.data.items() if k in known}
    own = load_swipe_data(Data(**fields), layout, seed)
    return HeldOut(own.dev, f"{own.corpora[-1].label}, held-out writers", own.train)


@dataclass(frozen=True, slots=True, eq=False)
class _Judge:
    """Everything but the model, so that two models are judged alike."""

    swipes: HeldOut
    lexicon: Lexicon
    groups: Groups
    preset: Path | None
    force_preset: bool
    beam_width: int | None

    def __call__(self, path: Path, checkpoint: Checkpoint, found: Contamination) -> Judged:
        gestures = self.swipes.gestures
        choice = choose_preset(
            self.preset,
            checkpoint_file(path),
            checkpoint.weights_sha256,
            self.lexicon,
            force=self.force_preset,
        )
        settings = choice.settings
        if self.beam_width is not None:
            settings = replace(settings, beam_width=self.beam_width)
        with counting("swipes decoded", len(gestures)) as say:
            evaluation = evaluate_words(
                checkpoint.model(),
                checkpoint.contract,
                feature_batch(gestures),
                [gesture.word for gesture in gestures],
                self.lexicon,
                preset=settings,
                swipes=self.swipes.label,
                groups=self.groups,
                extended=True,
                say=say,
            )
        return Judged(str(path), checkpoint.weights_sha256, choice.origin, evaluation, found)


def table(report: Report) -> list[Table | str]:
    """What ``swipe-train eval`` prints."""
    evaluation = report.judged.evaluation
    beam, extended = evaluation.beam, evaluation.extended
    title = (
        f"{evaluation.swipes}; lexicon {evaluation.lexicon}, beam {evaluation.preset.beam_width}"
    )
    accuracy = make_table(title, "set", "swipes", *(f"top-{k} %" for k in KS), "top-1, 95 %")
    rows = {"strict": beam["strict"], "in vocabulary": beam["in_vocabulary"]}
    rows["extended lexicon"] = extended["strict"] if extended else None
    for name, part in {**rows, **beam["strata"]}.items():
        if part is not None:
            figures = (f"{part['top_k'][str(k)]:.2f}" for k in KS)
            interval = _between(part["intervals"].get("1"))
            accuracy.add_row(name, f"{part['n']:,}", *figures, interval)
    top1 = evaluation.greedy["strict"]["top_k"]["1"]
    worst = beam["worst_stratum"]
    return [
        accuracy,
        f"worst stratum: {worst}, top-1 {beam['strata'][worst]['top_k']['1']:.2f} %",
        f"strict top-4, 95 %: {_between(beam['strict']['intervals'].get('4'))} "
        f"(intervals resample {report.writers:,} writers)",
        f"greedy strings: {top1:.2f} % right, {_errors(evaluation.greedy)}; beam {_errors(beam)}",
        *_against(report),
        *(_compared(judged) for judged in (report.judged, report.against) if judged),
        f"lexicon hash {evaluation.lexicon_sha256[:16]}, swipes hash "
        f"{evaluation.swipes_sha256[:16]}; {report.judged.decoder}",
    ]


def _against(report: Report) -> list[str]:
    """The lines on a second model."""
    if report.against is None:
        return []
    lines = [f"against {report.against.path}:"]
    for k, paired in report.comparison.items():
        other = report.against.evaluation.beam["strict"]["top_k"][k]
        lines.append(
            f"  strict top-{k} {other:.2f} %: difference {paired.difference:+.2f} points, 95 % "
            f"{_between(asdict(paired.interval) if paired.interval else None)}; "
            f"right in one only: {paired.only_first} here, {paired.only_second} there; "
            f"McNemar p = {paired.p:.3g}"
        )
    return lines


def _compared(judged: Judged) -> str:
    """What was found of training swipes among the evaluated ones."""
    check = judged.contamination
    if check.unchecked:
        return (
            f"contamination of {judged.path} not checked with {check.trained_on}: {check.unchecked}"
        )
    return (
        f"no swipe and no writer in common with {check.compared:,} training swipes "
        f"of {check.trained_on}"
    )


def _errors(part: dict[str, Any]) -> str:
    edits = part["edits"]
    return (
        f"CER {part['cer']:.2f} % ({edits['substitutions']} substitutions, "
        f"{edits['deletions']} deletions, {edits['insertions']} insertions)"
    )


def _between(interval: dict[str, float] | None) -> str:
    return f"{interval['low']:.1f} .. {interval['high']:.1f}" if interval else "-"
