"""The training loop, in one process."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from model.factories import MANIFEST, catalogue, contexts, model
from training.factories import rows, settings, shard, walks, written

from metarec_spark.errors import TrainingError
from metarec_spark.training import loop
from metarec_spark.training.batches import read_held_out
from metarec_spark.training.distributed import SingleProcess
from metarec_spark.training.optimizer import learning_rate
from metarec_spark.training.spec import TrainSpec
from metarec_spark.training.state import State
from metarec_spark.training.validation import encoder_ndcg


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def parts(tmp_path):
    """Sequences, and validation pairs in which the next item of each walk is asked for."""
    walk = walks(30)
    targets = [w[-1] for w in walk]
    sequences = written(tmp_path / "sequences", rows(walk, half=[user % 2 for user in range(30)]))
    pairs = rows([w[:-1] for w in walk], target=targets, target_domain=[t % 2 for t in targets], pair=list(range(len(targets))))
    return shard(sequences), read_held_out(shard(written(tmp_path / "validation", pairs)))


METHODS = ["joint", "reptile", "fomaml"]


def fit(parts, checkpoint, made=None, row_count=30, how=None, **fields):
    made, manifest = made or model(), MANIFEST.model_copy(update={"sequences": row_count, "train": settings(**fields)})
    spec = TrainSpec(snapshot="", model="", manifest=manifest, threads=2, **(how or {}))
    return made, loop.fit(made, catalogue(), *parts, spec, SingleProcess(), checkpoint)


def assert_equal(one, other):
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_rank_that_runs_out_repeats_its_last_batch_with_weight_zero():
    first, last = contexts([[1, 2]]), contexts([[3]])
    assert list(loop._exactly(4, iter([first, last]))) == [(first, 1.0), (last, 1.0), (last, 0.0), (last, 0.0)]


def test_the_learning_rate_rises_to_its_peak_and_falls_to_a_twentieth():
    rates = [learning_rate(step, 100, 0.5) for step in range(100)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert max(rates) == 0.5
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.025, rel=0.25)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_falls_and_the_validation_rises(parts, tmp_path, method):
    _, state = fit(parts, tmp_path / "checkpoint", epochs=12, method=method)
    assert [epoch.sequences for epoch in state.history] == [30.0] * 12
    assert state.history[-1].loss < 0.6 * state.history[0].loss
    assert state.best > state.history[0].validation_ndcg
    assert state.best == max(epoch.validation_ndcg for epoch in state.history)
    assert 0 < state.kept_epoch <= 12


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_model(parts, tmp_path, method):
    one, other, third = (
        fit(parts, tmp_path / name, model(dropout=0.2), seed=seed, full_softmax=3, negatives=3, method=method)[0]
        for name, seed in (("1", 7), ("2", 7), ("3", 8))
    )
    assert_equal(one, other)
    assert not torch.equal(one.item.weight, third.item.weight)


def test_each_method_gives_its_own_model(parts, tmp_path):
    joint, reptile, fomaml = (fit(parts, tmp_path / method, method=method)[0] for method in METHODS)
    for one, other in ((joint, reptile), (joint, fomaml), (reptile, fomaml)):
        assert not torch.allclose(one.item.weight, other.item.weight, atol=1e-3)


@pytest.mark.parametrize(("killed_in", "method"), [(2, "joint"), (3, "joint"), (2, "fomaml")])
def test_a_run_that_was_killed_and_resumed_equals_an_undisturbed_one(parts, tmp_path, monkeypatch, killed_in, method):
    undisturbed, expected = fit(parts, tmp_path / "undisturbed", model(dropout=0.2), epochs=4, method=method)
    steps, step = [], loop.Progress.step

    def until_killed(self, *said):
        steps.append(said)
        if self.title.startswith(f"epoch {killed_in}/") and self.done == 1:
            raise Killed
        step(self, *said)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Progress, "step", until_killed)
        with pytest.raises(Killed):
            fit(parts, tmp_path / "checkpoint", model(dropout=0.2), epochs=4, method=method)
    steps.clear()
    monkeypatch.setattr(loop.Progress, "step", lambda self, *said: steps.append(said))
    resumed, state = fit(parts, tmp_path / "checkpoint", model(seed=99, dropout=0.2), epochs=4, method=method)
    assert len(steps) == (5 - killed_in) * expected.history[0].steps
    assert_equal(resumed, undisturbed)
    assert [e.loss for e in state.history] == [e.loss for e in expected.history]


def test_a_domain_that_is_no_longer_learnt_may_fill_a_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(State, "active_domains", lambda *_: [1])
    apart = [[start, start + 2, start + 4] for start in range(10)]  # one domain a user
    made, before = model(), model()
    fit((shard(written(tmp_path / "apart", rows(apart))), []), tmp_path / "checkpoint", made, row_count=10)
    assert torch.equal(made.item.weight[0::2], before.item.weight[0::2])
    assert not torch.equal(made.item.weight[1::2], before.item.weight[1::2])


def test_a_finished_run_resumes_to_its_best_model_without_a_step(parts, tmp_path):
    done, _ = fit(parts, tmp_path / "checkpoint")
    shutil.copy(tmp_path / "checkpoint", tmp_path / "before")
    again, state = fit(parts, tmp_path / "checkpoint", model(seed=99))
    assert_equal(again, done)
    assert state.epoch == 3
    assert (tmp_path / "checkpoint").read_bytes() == (tmp_path / "before").read_bytes()


def test_training_stops_when_validation_no_longer_rises_and_keeps_the_best_epoch(parts, tmp_path):
    made, state = fit(parts, tmp_path / "checkpoint", epochs="auto", max_epochs=12, patience=2, learning_rate=0.3)
    assert state.epoch == state.kept_epoch + 2 < 12
    gains, _, pairs = encoder_ndcg(made, catalogue(), parts[1]).sum(0)
    assert gains / pairs == pytest.approx(state.history[state.kept_epoch - 1].validation_ndcg)


def test_without_validation_the_last_epoch_is_kept(parts, tmp_path):
    sequences, _ = parts
    _, state = fit((sequences, []), tmp_path / "checkpoint", epochs="auto", max_epochs=3, patience=1)
    assert (state.epoch, state.kept_epoch, state.best) == (3, 0, -1.0)
    assert [epoch.validation_ndcg for epoch in state.history] == [None] * 3


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


def noted(*values: list[float | None]) -> State:
    """A run of two domains with 100 validation pairs each, these NDCG@10 after its epochs, and standard errors of 0.01."""
    state = State()
    for pair in values:
        found = np.array([[100 * v, 100 * (v**2 + 0.1**2), 100] if v is not None else [0, 0, 0] for v in pair])
        state.record(np.array([3.0, 2.0]), np.array([2.0, 1.0]), found, seconds=1.0, sequences=1.0, steps=1)
    return state


def test_the_last_epoch_within_a_standard_error_of_the_best_is_kept():
    assert [noted(*[[v, v] for v in run]).kept_epoch for run in ([0.2, 0.3], [0.3, 0.295], [0.3, 0.28], [0.3, 0.28, 0.296])] == [
        2,
        2,
        1,
        3,
    ]
    state = noted([0.2, 0.2], [0.3, 0.3], [0.28, 0.28])
    assert state.best == pytest.approx(0.3)


def test_each_domain_stops_when_it_got_worse_for_long_enough():
    state = noted([0.1, 0.1], [0.2, 0.3], [0.1, 0.35], [0.15, 0.345])
    assert state.by_domain == [(pytest.approx(0.2), 2), (pytest.approx(0.35), 4)]
    assert state.history[2].validation_ndcg_by_domain == [pytest.approx(0.1), pytest.approx(0.35)]
    assert (state.history[2].loss, state.history[2].loss_by_domain) == (pytest.approx(5 / 3), [1.5, 2.0])
    automatic = settings(epochs="auto", patience=2)
    assert state.active_domains(automatic, [0, 1]) == [1]
    assert state.active_domains(settings(epochs=9, patience=2), [0, 1]) == [0, 1]
    assert State().active_domains(automatic, [0, 1]) == [0, 1]
    assert noted([0.2, None], [0.1, None], [0.1, None]).active_domains(automatic, [0, 1]) == [1]
    both = noted([0.2, 0.2], [0.1, 0.1], [0.1, 0.1])
    assert both.active_domains(automatic, [0, 1]) == [0, 1], "the last ones go on together"


def test_only_the_parameters_that_are_named_are_trained(parts, tmp_path):
    before = {name: value.clone() for name, value in model().state_dict().items()}
    made, _ = fit(parts, tmp_path / "checkpoint", how={"trained": ("item.", "adapter_", "query.")})
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"item.weight", "adapter_in", "adapter_out", "query.weight"}


def test_only_the_domains_that_are_named_are_learnt(parts, tmp_path):
    _, state = fit(parts, tmp_path / "checkpoint", how={"targets": [1]})
    assert all(of_books is None and of_films > 0 for of_books, of_films in (epoch.loss_by_domain for epoch in state.history))


def test_a_rehearsal_leaves_out_the_newest_event_in_a_domain(parts, tmp_path, monkeypatch):
    learnt, losses = [], loop.step_losses

    def noted(model, batch, *more):
        learnt.extend(tuple(of.tolist()) for of in batch.item.split(batch.length.tolist()))
        return losses(model, batch, *more)

    monkeypatch.setattr(loop, "step_losses", noted)
    _, state = fit(parts, tmp_path / "checkpoint", how={"without_newest": 1}, epochs=1)
    expected = []
    for walk in walks(30):
        newest = max(place for place, item in enumerate(walk) if item % 2 == 1)
        expected.append((*walk[:newest], *walk[newest + 1 :]))
    assert sorted(learnt) == sorted(expected) and state.history[0].sequences == 30
    lonely = contexts([[1], [0, 2], [2, 1], [3, 4]])
    assert loop._without_newest(lonely, 1).item.tolist() == [1, 0, 2, 2, 4], "of a single event nothing is learnt anyway"


def test_a_run_may_end_before_the_epochs_that_its_learning_rate_is_planned_for(parts, tmp_path):
    _, whole = fit((parts[0], []), tmp_path / "whole", epochs=5)
    _, part = fit((parts[0], []), tmp_path / "part", how={"stop_after": 2}, epochs=5)
    assert [epoch.loss for epoch in part.history] == [epoch.loss for epoch in whole.history[:2]]


def test_where_a_rehearsal_has_nothing_to_learn_it_says_so(tmp_path):
    pairs = shard(written(tmp_path / "pairs", rows([[start, start + 2] for start in range(10)])))
    _, state = fit((pairs, []), tmp_path / "checkpoint", row_count=10, how={"without_newest": 0, "targets": [0]}, epochs=1)
    assert state.history[0].loss is None and state.epoch == 1
