"""The training loop, in one process."""

from __future__ import annotations

import shutil

import pytest
import torch
from model.factories import catalogue, contexts, model
from training.factories import rows, settings, shard, walks, written

from metarec_spark.errors import TrainingError
from metarec_spark.training import loop
from metarec_spark.training.distributed import Alone


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def parts(tmp_path):
    """Sequences, and validation pairs in which the next item of each walk is asked for."""
    walk = walks(30)
    targets = [w[-1] for w in walk]
    sequences = written(tmp_path / "sequences", rows(walk))
    pairs = rows([w[:-1] for w in walk], target=targets, target_domain=[t % 2 for t in targets])
    return shard(sequences), shard(written(tmp_path / "validation", pairs))


def fit(parts, checkpoint, made=None, row_count=30, **fields):
    made = made or model()
    return made, loop.fit(
        made, catalogue(), *parts, rows=row_count, settings=settings(**fields), ranks=Alone(), checkpoint=checkpoint
    )


def assert_equal(one, other):
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_rank_that_runs_out_repeats_its_last_batch_with_weight_zero():
    first, last = contexts([[1, 2]]), contexts([[3]])
    assert list(loop._exactly(4, iter([first, last]))) == [(first, 1.0), (last, 1.0), (last, 0.0), (last, 0.0)]


def test_the_learning_rate_rises_to_its_peak_and_falls_to_a_twentieth():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = loop._Schedule(0.5, 100), []
    for step in range(100):
        schedule.set(optimizer, step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert max(rates) == 0.5
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.025, rel=0.25)


def test_the_loss_falls_and_the_validation_rises(parts, tmp_path):
    _, state = fit(parts, tmp_path / "checkpoint", epochs=6)
    assert [epoch["sequences"] for epoch in state.history] == [30.0] * 6
    assert state.history[-1]["loss"] < 0.6 * state.history[0]["loss"]
    assert state.best > state.history[0]["validation_ndcg@10"]
    assert state.best == max(epoch["validation_ndcg@10"] for epoch in state.history)
    assert state.history[state.best_epoch - 1]["validation_ndcg@10"] == state.best


def test_the_same_seed_gives_the_same_model(parts, tmp_path):
    one, other, third = (
        fit(parts, tmp_path / name, model(dropout=0.2), seed=seed, negatives=3)[0]
        for name, seed in (("1", 7), ("2", 7), ("3", 8))
    )
    assert_equal(one, other)
    assert not torch.equal(one.item.weight, third.item.weight)


@pytest.mark.parametrize("killed_in", [2, 3])
def test_a_run_that_was_killed_and_resumed_equals_an_undisturbed_one(parts, tmp_path, monkeypatch, killed_in):
    undisturbed, expected = fit(parts, tmp_path / "undisturbed", model(dropout=0.2), epochs=4)
    steps, step = [], loop.Progress.step

    def until_killed(self, *said):
        steps.append(said)
        if self.title.startswith(f"epoch {killed_in}/") and self.done == 1:
            raise Killed
        step(self, *said)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Progress, "step", until_killed)
        with pytest.raises(Killed):
            fit(parts, tmp_path / "checkpoint", model(dropout=0.2), epochs=4)
    steps.clear()
    monkeypatch.setattr(loop.Progress, "step", lambda self, *said: steps.append(said))
    resumed, state = fit(parts, tmp_path / "checkpoint", model(seed=99, dropout=0.2), epochs=4)
    assert len(steps) == (5 - killed_in) * expected.history[0]["steps"]
    assert_equal(resumed, undisturbed)
    assert [e["loss"] for e in state.history] == [e["loss"] for e in expected.history]


def test_a_finished_run_resumes_to_its_best_model_without_a_step(parts, tmp_path):
    done, _ = fit(parts, tmp_path / "checkpoint")
    shutil.copy(tmp_path / "checkpoint", tmp_path / "before")
    again, state = fit(parts, tmp_path / "checkpoint", model(seed=99))
    assert_equal(again, done)
    assert state.epoch == 3
    assert (tmp_path / "checkpoint").read_bytes() == (tmp_path / "before").read_bytes()


def test_training_stops_when_validation_no_longer_rises_and_keeps_the_best_epoch(parts, tmp_path):
    made, state = fit(parts, tmp_path / "checkpoint", epochs="auto", max_epochs=12, patience=2, learning_rate=0.3)
    assert state.epoch == state.best_epoch + 2 < 12
    assert loop._validate(made, parts[1], catalogue(), Alone()) == pytest.approx(state.best)


def test_without_validation_the_last_epoch_is_kept(parts, tmp_path):
    sequences, _ = parts
    _, state = fit((sequences, shard(tmp_path / "none")), tmp_path / "checkpoint", epochs="auto", max_epochs=3, patience=1)
    assert (state.epoch, state.best_epoch, state.best) == (3, 3, -1.0)
    assert [epoch["validation_ndcg@10"] for epoch in state.history] == [None] * 3


def test_rows_that_do_not_add_up_are_an_error(parts, tmp_path):
    with pytest.raises(TrainingError, match=r"ranks read 30 rows in an epoch, the snapshot has 31: run again"):
        fit(parts, tmp_path / "checkpoint", row_count=31)
    assert not (tmp_path / "checkpoint").exists()


def test_a_loss_that_is_not_finite_is_an_error(parts, tmp_path):
    broken = model()
    with torch.no_grad():
        broken.item.weight[3] = float("nan")
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 1: lower train.learning_rate"):
        fit(parts, tmp_path / "checkpoint", broken)


def test_validation_ranks_against_the_domain_less_the_context_and_ties_count_against():
    vectors = torch.tensor([[1.0, 0], [0.9, 0], [0.8, 0], [0.5, 0], [0.5, 0], [2.0, 0]])
    domain = torch.tensor([0, 0, 0, 0, 0, 1])
    user = torch.tensor([[1.0, 0.0]])

    def gain(context: list[int], target: int) -> float:
        return loop._ndcg(user, vectors, contexts([context], width=2), torch.tensor([target]), torch.tensor([0]), domain)

    assert gain([5], 0) == pytest.approx(1.0)
    assert gain([5], 2) == pytest.approx(0.5)  # rank 3
    assert gain([0, 1], 2) == pytest.approx(1.0)
    assert gain([0, 1], 3) == pytest.approx(0.5)  # behind 2 and its equal 4
