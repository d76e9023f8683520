"""The swipe task and its network: what a batch holds, who is held out, what the model computes."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from swipe.contract import ALPHABET, FRAMES, POINTS, frames_needed
from swipe.corpus import split_by_writer
from swipe.errors import ConfigError, DataError
from swipe.features import trajectories
from swipe.gesture import Gesture, letter_miss
from swipe.layout import BUILT_IN, Layout, load_layout
from swipe.lexicon import load_lexicon
from swipe.sources import write_jsonl
from swipe.synthesis import synthesize
from train.config import Data, TrainConfig, load_config
from train.loop import fit
from train.models import SwipeModel, TcnSpec, bake, build_model
from train.swipe_data import SwipeData, load_swipe_data, sample
from train.swipe_task import SwipeTask
from train.task import Batch, Score

LAYOUT = load_layout("qwerty")
WORDS = "wordfreq:2000"
QUIET = {"layouts": 0, "rows": 0, "scale": 0, "shear": 0, "translate": 0, "mirror": 0, "noise": 0}


def settings(**sections: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "model": {"channels": 8, "dilations": [1, 2]},
        "optimizer": {"batch_size": 32},
        "schedule": {"warmup_steps": 2},
        "length": {"steps": 6},
        "evaluation": {"times": 1, "swipes": 20, "lexicon": WORDS, "beam_width": 8},
    }
    return TrainConfig.model_validate({**fields, **sections})


def straight(word: str, identifier: str, writer: str, layout: Layout = LAYOUT) -> Gesture:
    """A swipe that stops on every key of `word` for 40 ms."""
    path = np.repeat(layout.path(word), 2, axis=0)
    t = np.arange(len(path)) * 40.0
    return Gesture(identifier, word, np.column_stack([path, t]).astype(np.float32), writer, "test")


def swipe_data(gestures: list[Gesture], dev: list[Gesture] | None = None) -> SwipeData:
    source = {"train": "test", "synthetic": False, "seed": 0}
    return SwipeData(gestures, gestures if dev is None else dev, 0, (), source)


@pytest.fixture(scope="module")
def data() -> SwipeData:
    config = Data(train="synthetic:500", dev_share=0.3)
    return load_swipe_data(config, LAYOUT, seed=0)


@pytest.fixture(scope="module")
def task(data: SwipeData) -> SwipeTask:
    return SwipeTask(settings(), data, LAYOUT)


def words_of(batch: Batch) -> list[str]:
    return [
        "".join(ALPHABET[i] for i in row[:length])
        for row, length in zip(
            batch.tensors["targets"].tolist(), batch.tensors["lengths"].tolist(), strict=True
        )
    ]


# Batches.


def test_a_batch_has_the_documented_shapes(task: SwipeTask) -> None:
    tensors = task.batch(0).tensors
    assert tensors["features"].shape == (32, 2, POINTS)
    assert tensors["keys"].shape == (32, len(ALPHABET), 2)
    assert tensors["features"].dtype == tensors["keys"].dtype == torch.float32
    assert tensors["targets"].dtype == tensors["lengths"].dtype == torch.int64
    assert tensors["features"].min() >= 0.0
    assert tensors["features"].max() <= 1.0
    assert task.model(tensors["features"], tensors["keys"]).shape == (32, FRAMES, 27)


def test_a_batch_is_a_function_of_the_step_only(data: SwipeData) -> None:
    one, other = (SwipeTask(settings(), data, LAYOUT) for _ in range(2))
    forward = [one.batch(step) for step in range(20)]
    torch.manual_seed(99)
    for step in reversed(range(20)):
        batch = other.batch(step)
        assert batch.row_ids == forward[step].row_ids
        for name, tensor in batch.tensors.items():
            assert torch.equal(tensor, forward[step].tensors[name]), (step, name)


def test_steps_and_seeds_differ(data: SwipeData, task: SwipeTask) -> None:
    assert task.batch(0).row_ids != task.batch(1).row_ids
    other = SwipeTask(settings(seed=1), data, LAYOUT)
    assert task.batch(0).row_ids != other.batch(0).row_ids


def test_an_epoch_visits_each_row_at_most_once(data: SwipeData, task: SwipeTask) -> None:
    batches = len(data.train) // 32
    known = {g.id for g in data.train}
    epochs = []
    for epoch in range(3):
        rows = [i for k in range(batches) for i in task.batch(epoch * batches + k).row_ids]
        assert len(rows) == len(set(rows)) == batches * 32
        assert set(rows) <= known
        epochs.append(rows)
    assert epochs[0] != epochs[1], "every epoch has the same order"
    assert set().union(*epochs) == known or len(known) % 32, "a row is never visited"


def test_a_corpus_smaller_than_a_batch_is_one_batch() -> None:
    gestures = [straight(word, word, "w") for word in ("the", "and", "you")]
    small = SwipeTask(settings(), swipe_data(gestures), LAYOUT)
    for step in range(3):
        assert sorted(small.batch(step).row_ids) == ["and", "the", "you"]


def test_targets_decode_back_to_the_words(data: SwipeData, task: SwipeTask) -> None:
    truth = {g.id: g.word for g in data.train}
    for step in range(10):
        batch = task.batch(step)
        assert words_of(batch) == [truth[i] for i in batch.row_ids]
        assert int(batch.tensors["targets"].max()) < len(ALPHABET), "the blank is no letter"


def test_features_of_a_batch_belong_to_its_rows(data: SwipeData) -> None:
    quiet = SwipeTask(settings(augment=QUIET), data, LAYOUT)
    by_id = {g.id: g for g in data.train}
    batch = quiet.batch(3)
    expected = np.clip(trajectories(by_id[i] for i in batch.row_ids), 0.0, 1.0)
    np.testing.assert_allclose(batch.tensors["features"].numpy(), expected, atol=1e-6)
    keys = np.broadcast_to(LAYOUT.centers, (32, 26, 2))
    np.testing.assert_allclose(batch.tensors["keys"].numpy(), keys, atol=1e-6)


# The loss.


def test_the_loss_is_finite_and_reaches_every_parameter(task: SwipeTask) -> None:
    loss = task.loss(task.batch(0))
    assert loss.ndim == 0
    assert math.isfinite(float(loss.detach()))
    loss.backward()
    for name, parameter in task.model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("word", ["ab" * 17, "a" * 17])
def test_a_word_that_does_not_fit_gives_an_infinite_loss_and_never_zero(word: str) -> None:
    assert frames_needed(word) > FRAMES
    gestures = [straight("hello", "good", "w"), straight(word, "long", "w")]
    infeasible = SwipeTask(settings(), swipe_data(gestures), LAYOUT)
    assert not torch.isfinite(infeasible.loss(infeasible.batch(0)))


def test_the_longest_word_that_fits_has_a_finite_loss() -> None:
    gestures = [straight("ab" * 16, "long", "w"), straight("a" * 16, "doubled", "w")]
    longest = SwipeTask(settings(), swipe_data(gestures), LAYOUT)
    assert torch.isfinite(longest.loss(longest.batch(0)))


# Who is held out, and what is left out.


def test_training_and_held_out_swipes_have_no_writer_in_common(data: SwipeData) -> None:
    train, dev = {g.writer for g in data.train}, {g.writer for g in data.dev}
    assert train
    assert dev
    assert not train & dev
    assert len(data.train) + len(data.dev) + data.filtered == 500


def test_the_split_is_the_same_whatever_the_order(data: SwipeData) -> None:
    (corpus,) = data.corpora
    again = split_by_writer(reversed(corpus.gestures), 0.3, salt="dev")[1]
    assert {g.id for g in again} == {g.id for g in data.dev}


def test_a_real_corpus_is_split_by_writer(shared_data: Path) -> None:
    corpus = str(shared_data / "how_we_swipe" / "dev.jsonl.gz")
    real = load_swipe_data(Data(train=corpus, dev_share=0.3), LAYOUT, seed=0)
    assert not {g.writer for g in real.train} & {g.writer for g in real.dev}
    assert real.filtered > 0
    assert not real.source["synthetic"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Corpora by name: two that share a writer, and one that shares none."""
    swipes = list(synthesize(LAYOUT, load_lexicon(WORDS), 200).gestures)
    other = list(synthesize(LAYOUT, load_lexicon(WORDS), 100, first_writer=50).gestures)
    parts = {"train": swipes[:150], "overlapping": swipes[140:], "disjoint": other}
    for name, part in parts.items():
        write_jsonl(part, tmp_path / f"{name}.jsonl")
    return {name: str(tmp_path / f"{name}.jsonl") for name in parts}


def test_a_dev_corpus_that_shares_a_writer_is_refused(files: dict[str, str]) -> None:
    config = Data(train=files["train"], dev=files["overlapping"])
    with pytest.raises(DataError, match="1 writers are in both") as caught:
        load_swipe_data(config, LAYOUT, seed=0)
    assert files["train"] in str(caught.value)
    assert files["overlapping"] in str(caught.value)


def test_a_dev_corpus_of_other_writers_is_held_out_whole(files: dict[str, str]) -> None:
    config = Data(train=files["train"], dev=files["disjoint"])
    apart = load_swipe_data(config, LAYOUT, seed=0)
    assert len(apart.dev) == 100
    assert len(apart.train) + apart.filtered == 150
    assert len(apart.corpora) == 2


def test_the_training_corpus_itself_is_no_dev_corpus(files: dict[str, str]) -> None:
    with pytest.raises(DataError, match="writers are in both"):
        load_swipe_data(Data(train=files["train"], dev=files["train"]), LAYOUT, seed=0)


def test_synthetic_dev_swipes_are_of_other_writers_than_synthetic_training_swipes() -> None:
    apart = load_swipe_data(Data(train="synthetic:200", dev="synthetic:100"), LAYOUT, seed=0)
    assert not {g.writer for g in apart.train} & {g.writer for g in apart.dev}


def test_one_writer_cannot_be_split() -> None:
    with pytest.raises(DataError, match="too few writers"):
        load_swipe_data(Data(train="synthetic:20"), LAYOUT, seed=0)


def test_swipes_that_miss_a_letter_are_left_out_of_training_only(tmp_path: Path) -> None:
    writers = [f"w{i}" for i in range(10)]
    good = [straight(w, f"{u}-{w}", u) for u in writers for w in ("hello", "world")]
    # Swiped over another word: the first letter alone is keys away.
    bad = [Gesture(f"{u}-bad", "pizza", straight("was", "", u).points, u, "test") for u in writers]
    write_jsonl([*good, *bad], tmp_path / "swipes.jsonl")
    config = Data(train=str(tmp_path / "swipes.jsonl"), dev_share=0.3)
    loaded = load_swipe_data(config, LAYOUT, seed=0)
    held_out = len({g.writer for g in loaded.dev})
    assert loaded.filtered == 10 - held_out
    assert sum(g.word == "pizza" for g in loaded.dev) == held_out
    assert all(g.word != "pizza" for g in loaded.train)
    assert all(letter_miss(g, LAYOUT) <= config.max_letter_miss for g in loaded.train)


def test_data_of_another_keyboard_is_refused(tmp_path: Path) -> None:
    """Every letter of these words has moved on Dvorak."""
    swipes = [straight(w, f"{u}-{w}", f"w{u}") for u in range(9) for w in ("people", "world")]
    write_jsonl(swipes, tmp_path / "swipes.jsonl")
    config = Data(train=str(tmp_path / "swipes.jsonl"), layout="dvorak", dev_share=0.3)
    with pytest.raises(DataError, match="no training swipe passes over the letters"):
        load_swipe_data(config, load_layout("dvorak"), seed=0)


def test_a_sample_is_in_order_without_repeats_and_repeatable(data: SwipeData) -> None:
    drawn = sample(data.train, 40, seed=3)
    assert [g.id for g in drawn] == [g.id for g in sample(data.train, 40, seed=3)]
    assert [g.id for g in drawn] != [g.id for g in sample(data.train, 40, seed=4)]
    positions = [data.train.index(g) for g in drawn]
    assert positions == sorted(set(positions))
    assert sample(data.train, 10**6, seed=3) == data.train


# Scores and checkpoints.


def test_evaluation_scores_the_held_out_swipes(task: SwipeTask) -> None:
    score = task.evaluate()
    assert isinstance(score, Score)
    assert 0.0 <= score.value <= 100.0
    assert score.metrics["beam"]["strict"]["n"] == 20
    assert "of 20 swipes" in score.summary


def test_a_checkpoint_is_a_copy_and_says_where_it_came_from(task: SwipeTask) -> None:
    checkpoint = task.checkpoint(5, Score(1.0, {"n": 1}, ""))
    assert checkpoint.contract == LAYOUT.contract()
    assert checkpoint.data["train"] == "synthetic:500"
    assert checkpoint.data["synthetic"] is True
    before = checkpoint.tensors["blank"].clone()
    with torch.no_grad():
        task.model.blank.add_(1.0)
    assert torch.equal(checkpoint.tensors["blank"], before)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="lstm"):
        load_config("nano", {"model.name": "lstm"})


# The network.


@pytest.mark.parametrize(("preset", "most"), [("nano", 90_000), ("base", 300_000)])
def test_presets_stay_within_their_parameter_budget(preset: str, most: int) -> None:
    model = build_model(load_config(preset).model)
    assert 0.9 * most <= sum(p.numel() for p in model.parameters()) <= most


@pytest.fixture(scope="module")
def trained(data: SwipeData, tmp_path_factory: pytest.TempPathFactory) -> SwipeModel:
    """A nano model after some steps, so that the statistics of BatchNorm have moved."""
    config = settings(model={}, length={"steps": 8})
    task = SwipeTask(config, data, LAYOUT)
    fit(task, config, tmp_path_factory.mktemp("run"), lambda progress: None)
    return task.model.eval()


def features_of(data: SwipeData, count: int = 16) -> torch.Tensor:
    return torch.from_numpy(np.clip(trajectories(data.dev[:count]), 0.0, 1.0))


def test_the_statistics_of_the_trained_model_have_moved(trained: SwipeModel) -> None:
    """Otherwise the folding below would be tested on identities."""
    for name, buffer in trained.named_buffers():
        if name.endswith("running_mean"):
            assert buffer.abs().max() > 1e-3, name
        if name.endswith("running_var"):
            assert (buffer - 1.0).abs().max() > 1e-2, name


@pytest.mark.parametrize("layout", BUILT_IN)
def test_the_baked_model_equals_the_trained_one(
    data: SwipeData, trained: SwipeModel, layout: str
) -> None:
    keys = torch.from_numpy(load_layout(layout).centers.astype(np.float32))
    features = features_of(data)
    with torch.inference_mode():
        expected = trained(features, keys.expand(len(features), -1, -1))
        baked = bake(trained, keys)(features)
    assert baked.shape == expected.shape == (len(features), FRAMES, len(ALPHABET) + 1)
    assert (baked - expected).abs().max() <= 1e-4
    assert expected.std() > 0.01, "a constant model is equal to anything"


def test_baking_leaves_the_model_as_it_was(data: SwipeData) -> None:
    torch.manual_seed(0)
    model = build_model(TcnSpec(channels=8)).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    bake(model, torch.rand(26, 2))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    evaluating = [name for name, module in model.named_modules() if not module.training]
    assert not evaluating, "these modules were in training mode before"
    assert all(p.requires_grad for p in model.parameters())


def test_the_baked_model_cannot_be_trained(trained: SwipeModel) -> None:
    baked = bake(trained, torch.rand(26, 2))
    assert not any(p.requires_grad for p in baked.parameters())
    assert not any(m.training for m in baked.modules())
    names = {type(module).__name__ for module in baked.modules()}
    assert not {"BatchNorm1d", "ConvNorm", "KeyEmbedding"} & names


@pytest.mark.parametrize("count", [1, 5])
def test_the_output_does_not_depend_on_the_rest_of_the_batch(
    data: SwipeData, trained: SwipeModel, count: int
) -> None:
    features = features_of(data)
    keys = torch.from_numpy(LAYOUT.centers.astype(np.float32))
    with torch.inference_mode():
        whole = trained(features, keys.expand(len(features), -1, -1))
        part = trained(features[:count], keys.expand(count, -1, -1))
    torch.testing.assert_close(part, whole[:count], atol=1e-5, rtol=1e-5)


def test_frames_of_a_moving_swipe_differ(trained: SwipeModel) -> None:
    """L2: a model that pools time away says the same in every frame."""
    features = torch.from_numpy(np.clip(trajectories([straight("qpz", "moving", "w")]), 0.0, 1.0))
    keys = torch.from_numpy(LAYOUT.centers.astype(np.float32))[None]
    with torch.inference_mode():
        logits = trained(features, keys)[0]
    assert logits.std(dim=0).max() > 0.05
    assert all((a - b).abs().max() > 0 for a, b in itertools.pairwise(logits))


def test_a_swipe_that_stands_still_is_finite(trained: SwipeModel) -> None:
    keys = torch.from_numpy(LAYOUT.centers.astype(np.float32))[None]
    for value in (0.0, 0.5, 1.0):
        with torch.inference_mode():
            logits = trained(torch.full((1, 2, POINTS), value), keys)
        assert torch.isfinite(logits).all()


def test_moving_the_keys_moves_the_answer(data: SwipeData, trained: SwipeModel) -> None:
    """Exchanging two keys exchanges their classes, and nothing else."""
    features = features_of(data, 4)
    keys = torch.from_numpy(LAYOUT.centers.astype(np.float32))
    order = list(range(26))
    order[0], order[16] = 16, 0
    with torch.inference_mode():
        before = trained(features, keys.expand(4, -1, -1))
        after = trained(features, keys[order].expand(4, -1, -1))
    torch.testing.assert_close(after, before[:, :, [*order, 26]])
