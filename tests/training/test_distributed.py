"""Several ranks: under real Horovod on this host, and as threads where only the sums of a step are the subject."""

from __future__ import annotations

import shutil
import time
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from model.factories import contexts
from safetensors import safe_open
from training.factories import changed, settings, spec, walks
from training.ranks import as_threads

from metarec_spark.errors import TrainingError
from metarec_spark.model import artifact
from metarec_spark.training.launch import launch
from metarec_spark.training.progress import Progress
from metarec_spark.training.worker import train

# Two equal shares, each one batch: two ranks then take the very steps that one rank takes with both at once.
ONE_STEP = {"batch_tokens": 512, "processes": 2, "epochs": 4}
# A batch holds users of one newest domain: here all end in the same.
WALKS = [walk if walk[-1] % 2 == 0 else [*walk, (walk[-1] + 1) % 20] for walk in walks(length=5)]


def trained(file, processes: int) -> artifact.ModelArtifact:
    launch(file, processes, "local", None, timeout=60)
    return artifact.load(file.parent / "model")


def in_threads(file, ranks: int) -> artifact.ModelArtifact:
    as_threads(ranks, partial(train, file))
    return artifact.load(file.parent / "model")


def assert_close(one, other):
    """Same vectors of items and users, but for the order in which floats were added."""
    np.testing.assert_allclose(one.item_vectors, other.item_vectors, atol=1e-3)
    user = contexts(walks(8))
    for domain in (0, 1):
        vectors = [made.model.user_vectors(made.model.encode(user), domain) for made in (one, other)]
        torch.testing.assert_close(*vectors, rtol=0, atol=2e-3)
    assert one.manifest.tuned == other.manifest.tuned


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return trained(spec(tmp_path_factory.mktemp("two"), settings(**ONE_STEP), sequences=WALKS, files=2), 2)


def test_two_ranks_take_the_steps_of_one(tmp_path, undisturbed):
    one = trained(spec(tmp_path, settings(**ONE_STEP), sequences=WALKS, files=1), 1)
    assert_close(undisturbed, one)
    losses = [[epoch.loss for epoch in found.manifest.metrics.history] for found in (undisturbed, one)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_ranks_that_touch_different_items_and_a_sample_take_the_steps_of_one(tmp_path):
    walks, how = [[0, 2, 4], [10, 12, 14]], ONE_STEP | {"full_softmax": 0, "negatives": 4}
    two = in_threads(spec(tmp_path / "two", settings(**how), sequences=walks, files=2), 2)
    one = trained(spec(tmp_path / "one", settings(**how), sequences=walks, files=1), 1)
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(two.model.state_dict()[name], value, rtol=0, atol=1e-3)
    start = trained(spec(tmp_path / "start", settings(**how | {"learning_rate": 1e-9}), sequences=walks, files=1), 1)
    moved = (one.model.item.weight - start.model.item.weight).abs().sum(1) > 1e-3
    assert moved[[0, 2, 4, 10, 12, 14]].all() and not moved.all()


def test_ranks_as_threads_take_the_steps_of_horovods(tmp_path, undisturbed):
    threads = in_threads(spec(tmp_path, settings(**ONE_STEP), sequences=WALKS, files=2), 2)
    for name, value in threads.model.state_dict().items():
        torch.testing.assert_close(undisturbed.model.state_dict()[name], value, rtol=0, atol=1e-5)


def test_an_error_of_one_thread_ends_the_others(tmp_path):
    with pytest.raises(TrainingError, match=r"rank [01] of 2: .* has fewer files than ranks"):
        in_threads(spec(tmp_path, settings(**ONE_STEP), sequences=WALKS, files=1), 2)


@pytest.mark.parametrize("method", ["reptile", "fomaml"])
def test_two_ranks_with_the_same_episode_take_the_steps_of_one(tmp_path, method):
    one = trained(spec(tmp_path / "one", settings(batch_tokens=512, epochs=4, method=method), sequences=WALKS, files=1), 1)
    both = spec(tmp_path / "two", settings(**ONE_STEP | {"batch_tokens": 1024}, method=method), sequences=WALKS, files=1)
    sequences = both.parent / "snapshot" / "sequences"
    shutil.copy(sequences / "part-0.parquet", sequences / "part-1.parquet")
    two = in_threads(changed(both, manifest={"sequences": 2 * len(WALKS)}), 2)
    assert_close(two, one)
    losses = [[epoch.loss for epoch in found.manifest.metrics.history] for found in (two, one)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_two_ranks_read_every_row_and_validate_every_pair(undisturbed):
    history = undisturbed.manifest.metrics.history
    assert [(epoch.sequences, epoch.steps) for epoch in history] == [(30.0, 1)] * 4
    assert history[-1].loss < history[0].loss
    assert 0 < undisturbed.manifest.metrics.validation_ndcg <= 1


def test_a_rank_with_fewer_batches_waits_for_none_and_counts_no_row_twice(tmp_path):
    unequal = [[0, 2]] * 10 + [[0, 2, 4, 6, 8, 10]] * 10
    how = settings(batch_tokens=16, processes=2, epochs=3)
    found = in_threads(spec(tmp_path, how, sequences=unequal, files=2), 2)
    assert [(epoch.sequences, epoch.steps) for epoch in found.manifest.metrics.history] == [(20.0, 10)] * 3


def test_two_ranks_that_train_a_part_of_a_model_without_content_take_the_steps_of_one(tmp_path):
    found = {}
    for processes in (1, 2):
        file = spec(tmp_path / str(processes), settings(**ONE_STEP), sequences=WALKS, files=processes)
        tokens = file.parent / "snapshot" / "tokens" / "part-0.parquet"
        pq.write_table(pq.read_table(tokens).slice(0, 0), tokens)
        found[processes] = in_threads(changed(file, trained=("item.", "query.")), processes)
    assert_close(found[2], found[1])
    for name, value in found[2].model.state_dict().items():
        equal = torch.equal(value, found[1].model.state_dict()[name])
        assert equal or name.startswith(("item.", "query.")), name


def test_a_checkpoint_of_two_ranks_holds_the_moments(undisturbed):
    with safe_open(undisturbed.folder.parent / "checkpoint.safetensors", framework="pt") as file:
        moments = {name: file.get_tensor(name) for name in file.keys() if name.startswith("optimizer.")}  # noqa: SIM118
    assert {value.item() for name, value in moments.items() if name.endswith(".step")} == {4.0}
    assert sum(value.abs().sum() for name, value in moments.items() if name.endswith((".exp_avg", "item.weight.first"))) > 0


def test_two_ranks_go_on_from_a_checkpoint_as_if_undisturbed(tmp_path, undisturbed, monkeypatch):
    def killed_in_the_third_epoch(self, *_):
        if self.title == "epoch 3/4":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Progress, "step", killed_in_the_third_epoch)
        trained(spec(tmp_path / "one", settings(**ONE_STEP), sequences=WALKS, files=1), 1)
    file = spec(tmp_path / "two", settings(**ONE_STEP), sequences=WALKS, files=2)
    shutil.copy(tmp_path / "one" / "checkpoint.safetensors", file.parent)
    assert_close(trained(file, 2), undisturbed)


def test_a_rank_that_fails_ends_the_run_with_its_own_error(tmp_path):
    file = spec(tmp_path, settings(**ONE_STEP), sequences=WALKS, files=1)
    start = time.monotonic()
    with pytest.raises(
        TrainingError,
        match=r"rank ([01]) failed: TrainingError: rank \1 of 2: .* has fewer files than ranks; lower train.processes; horovod ended",
    ):
        launch(file, 2, "local", None, timeout=60)
    assert time.monotonic() - start < 60
    assert not (tmp_path / "model").exists()


def test_a_file_that_cannot_be_read_ends_the_run_in_one_process_too(tmp_path):
    file = spec(tmp_path, settings(), sequences=walks(4))
    for part in (tmp_path / "snapshot" / "sequences").iterdir():
        part.write_bytes(b"PAR1 no more")
    with pytest.raises(Exception, match="(?i)parquet"):
        launch(file, 1, "local", None, timeout=60)
    assert not (tmp_path / "model").exists()
