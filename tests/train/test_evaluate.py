"""Evaluation: both decoders are scored, and a model or data that cannot be is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from swipe.errors import CheckpointError, DataError, ExitCode, NonFiniteError, SwipeError
from swipe.features import feature_batch
from swipe.gesture import Gesture
from swipe.layout import Layout, load_layout
from swipe.lexicon import Lexicon, load_lexicon
from swipe.presets import DecoderPreset
from swipe.scoring import KS
from swipe.sources import write_jsonl
from swipe.synthesis import synthesize
from train.checkpoint import Checkpoint, save_checkpoint
from train.config import Data, TrainConfig
from train.evaluate import BATCH, evaluate_words, predict
from train.judge import evaluate_checkpoint
from train.models import TcnSpec, build_model
from train.swipe_data import load_swipe_data
from train.swipe_task import SwipeTask
from train.task import Score

LAYOUT = load_layout("qwerty")
CONTRACT = LAYOUT.contract()
SPEC = TcnSpec(channels=4, dilations=(1,))
WORDS = "wordfreq:2000"
NARROW = DecoderPreset(beam_width=8)


class Oracle(nn.Module):
    """Logits of the key nearest to the finger: a model that reads, with no weights."""

    def forward(self, features: Tensor, keys: Tensor) -> Tensor:
        distance = torch.cdist(features[:, :, ::2].transpose(1, 2), keys)
        blank = torch.full_like(distance[:, :, :1], 2.0)
        return torch.cat([20.0 * torch.exp(-30.0 * distance), blank], dim=2)


class Constant(nn.Module):
    """The same number everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, features: Tensor, keys: Tensor) -> Tensor:
        return torch.full((len(features), 32, keys.shape[1] + 1), self.value)


class OneBad(Oracle):
    """One bad number in one of many swipes."""

    def forward(self, features: Tensor, keys: Tensor) -> Tensor:
        logits = super().forward(features, keys)
        logits[-1, 7, 3] = float("inf")
        return logits


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return load_lexicon(WORDS)


@pytest.fixture(scope="module")
def swipes(lexicon: Lexicon) -> list[Gesture]:
    return list(synthesize(LAYOUT, lexicon, 60).gestures)


def untrained(**changes: object) -> Checkpoint:
    torch.manual_seed(0)
    tensors = dict(build_model(SPEC).state_dict())
    source = {"train": "synthetic:300", "dev": "", "dev_share": 0.3, "seed": 0}
    return replace(Checkpoint(SPEC, CONTRACT, tensors, 1, {}, source), **changes)  # type: ignore[arg-type]


def evaluate_file(
    path: Path, data: str | None = "synthetic:30", limit: int = 0
) -> dict[str, object]:
    return evaluate_checkpoint(path, data, WORDS, beam_width=8, limit=limit).to_dict()


# Predictions.


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1])
def test_every_swipe_gets_its_logits(count: int) -> None:
    features = np.random.default_rng(0).uniform(0, 1, (count, 2, 64)).astype(np.float32)
    logits = predict(Oracle(), CONTRACT, features)
    assert logits.shape == (count, 32, 27)
    assert logits.dtype == np.float32
    alone = predict(Oracle(), CONTRACT, features[-1:])
    np.testing.assert_allclose(logits[-1:], alone, atol=1e-5)


def test_prediction_does_not_train() -> None:
    model = build_model(SPEC).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    predict(model, CONTRACT, np.random.default_rng(0).random((9, 2, 64), dtype=np.float32))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_model_that_is_not_finite_is_refused(
    swipes: list[Gesture], lexicon: Lexicon, bad: float
) -> None:
    with pytest.raises(NonFiniteError, match="logits") as caught:
        evaluate_words(
            Constant(bad), CONTRACT, feature_batch(swipes), [g.word for g in swipes], lexicon
        )
    assert caught.value.exit_code == ExitCode.GATE_FAILED


def test_one_bad_number_of_one_swipe_is_refused(swipes: list[Gesture]) -> None:
    with pytest.raises(NonFiniteError, match="0 NaN and 1 Inf"):
        predict(OneBad(), CONTRACT, feature_batch(swipes))


# Scores.


def test_no_swipes_are_no_evaluation(lexicon: Lexicon) -> None:
    with pytest.raises(DataError):
        evaluate_words(Oracle(), CONTRACT, feature_batch([]), [], lexicon)


def test_as_many_words_as_swipes_are_needed(swipes: list[Gesture], lexicon: Lexicon) -> None:
    with pytest.raises(DataError):
        evaluate_words(Oracle(), CONTRACT, feature_batch(swipes), ["the"], lexicon)


def test_the_figures_are_all_there_and_are_json(swipes: list[Gesture], lexicon: Lexicon) -> None:
    result = evaluate_words(
        Oracle(),
        CONTRACT,
        feature_batch(swipes),
        [g.word for g in swipes],
        lexicon,
        preset=DecoderPreset(beam_width=50),
        swipes="synthetic",
    )
    figures = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert figures["swipes"] == "synthetic"
    assert figures["lexicon"] == WORDS
    assert figures["lexicon_sha256"] == lexicon.sha256
    assert figures["preset"]["beam_width"] == 50
    for decoder in ("beam", "greedy"):
        part = figures[decoder]
        assert part["strict"]["n"] == len(swipes)
        tops = [part["strict"]["top_k"][str(k)] for k in KS]
        assert tops == sorted(tops)
        assert part["cer"] >= 0.0
        assert set(part["edits"]) == {"substitutions", "deletions", "insertions", "letters"}
        assert sum(len(g.word) for g in swipes) == part["edits"]["letters"]
    assert figures["greedy"]["strict"]["top_k"]["1"] == figures["greedy"]["strict"]["top_k"]["8"]
    # A model that reads the keys under the finger: the scores are of something.
    assert figures["beam"]["strict"]["top_k"]["8"] > 10.0


def test_a_word_outside_the_lexicon_is_a_strict_miss(swipes: list[Gesture]) -> None:
    """Strict counts it, in-vocabulary leaves it out, and nothing is averaged over nothing."""
    truths = ["zzxq"] * len(swipes)
    result = evaluate_words(
        Oracle(), CONTRACT, feature_batch(swipes), truths, load_lexicon(WORDS), preset=NARROW
    )
    assert result.beam["strict"]["top_k"]["8"] == 0.0
    assert result.beam["in_vocabulary"] is None
    json.dumps(result.to_dict(), allow_nan=False)


# Checkpoints.


def test_a_checkpoint_is_evaluated_on_its_own_held_out_swipes(tmp_path: Path) -> None:
    save_checkpoint(untrained(), tmp_path / "best.safetensors")
    held_out = load_swipe_data(Data(train="synthetic:300", dev_share=0.3), LAYOUT, 0).dev
    figures = evaluate_file(tmp_path, data=None)
    assert figures["beam"]["strict"]["n"] == len(held_out)  # type: ignore[index]
    assert "held-out" in str(figures["swipes"])
    assert "synthetic" in str(figures["swipes"])


def test_a_limit_draws_that_many(tmp_path: Path) -> None:
    save_checkpoint(untrained(), tmp_path / "best.safetensors")
    assert evaluate_file(tmp_path, limit=7)["beam"]["strict"]["n"] == 7  # type: ignore[index]


def test_an_empty_or_absent_corpus_is_refused(tmp_path: Path) -> None:
    save_checkpoint(untrained(), tmp_path / "best.safetensors")
    (tmp_path / "empty.jsonl").write_text("")
    for name in ("empty.jsonl", "absent.jsonl"):
        with pytest.raises(DataError, match=name):
            evaluate_file(tmp_path, data=str(tmp_path / name))


def test_a_corpus_of_nothing_but_bad_rows_is_refused_with_a_reason(tmp_path: Path) -> None:
    save_checkpoint(untrained(), tmp_path / "best.safetensors")
    (tmp_path / "bad.jsonl").write_text("{broken\n" * 3)
    with pytest.raises(DataError, match="3 rows rejected; the first reason is: not JSON"):
        evaluate_file(tmp_path, data=str(tmp_path / "bad.jsonl"))


@pytest.mark.parametrize(
    "change",
    [
        {"features": "dedup-30hz-strided64/1"},
        {"points": 128},
        {"frames": 64},
    ],
    ids=["feature recipe", "points", "frames"],
)
def test_a_checkpoint_of_another_contract_is_refused(
    tmp_path: Path, change: dict[str, object]
) -> None:
    """L1: these features are not the ones it was trained on, and would score as a bad model."""
    other = replace(CONTRACT, **change)  # type: ignore[arg-type]
    save_checkpoint(untrained(contract=other), tmp_path / "best.safetensors")
    with pytest.raises(SwipeError) as caught:
        evaluate_file(tmp_path)
    assert isinstance(caught.value, CheckpointError | DataError)


def test_a_model_trained_on_a_layout_file_can_be_evaluated(tmp_path: Path) -> None:
    mine = Layout("mine", LAYOUT.letters, LAYOUT.centers + 0.001, LAYOUT.radii)
    mine.save(tmp_path / "mine.json")
    spec = str(tmp_path / "mine.json")
    config = TrainConfig.model_validate(
        {
            "data": {"train": "synthetic:300", "layout": spec, "dev_share": 0.3},
            "model": {"channels": 4, "dilations": [1]},
            "length": {"steps": 1},
            "evaluation": {"lexicon": WORDS},
        }
    )
    layout = load_layout(spec)
    task = SwipeTask(config, load_swipe_data(config.data, layout, 0), layout)
    save_checkpoint(task.checkpoint(1, Score(0.0, {}, "")), tmp_path / "best.safetensors")
    figures = evaluate_file(tmp_path, data=None, limit=5)
    assert figures["beam"]["strict"]["n"] == 5  # type: ignore[index]


def test_real_swipes_are_evaluated(tmp_path: Path, shared_data: Path) -> None:
    save_checkpoint(untrained(), tmp_path / "best.safetensors")
    corpus = shared_data / "how_we_swipe" / "dev.jsonl.gz"
    figures = evaluate_file(tmp_path, data=str(corpus), limit=20)
    assert figures["beam"]["strict"]["n"] == 20  # type: ignore[index]
    assert "synthetic" not in str(figures["swipes"])


def test_the_released_model_reads_real_swipes(
    tmp_path: Path, released: Path, shared_data: Path, swipes: list[Gesture]
) -> None:
    corpus = shared_data / "how_we_swipe" / "dev.jsonl.gz"
    # The real training corpus takes long to compare; tests of the protocol do.
    write_jsonl(swipes, tmp_path / "train.jsonl")
    report = evaluate_checkpoint(
        released,
        str(corpus),
        "wordfreq:50000",
        beam_width=50,
        limit=150,
        train_data=str(tmp_path / "train.jsonl"),
    )
    result = report.judged.evaluation
    assert result.beam["strict"]["top_k"]["4"] > 70.0
    assert result.greedy["cer"] < 40.0
    strata = result.beam["strata"]
    assert strata["natural sentences"]["n"] + strata["random prompts"]["n"] == 150


def test_written_and_read_swipes_score_the_same(tmp_path: Path, swipes: list[Gesture]) -> None:
    write_jsonl(swipes, tmp_path / "swipes.jsonl.gz")
    save_checkpoint(untrained(), tmp_path / "best.safetensors")
    figures = evaluate_file(tmp_path, data=str(tmp_path / "swipes.jsonl.gz"))
    assert figures["beam"]["strict"]["n"] == len(swipes)  # type: ignore[index]
