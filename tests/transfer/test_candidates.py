"""A candidate with an encoder: its validation twin is measured, and the model that serves is trained on all events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training.factories import settings, spec

from metarec_spark.config.sections import Adapt, Transitions
from metarec_spark.model import artifact
from metarec_spark.model.ensemble.pair_ranker import PairRanker
from metarec_spark.training.spec import TrainSpec
from metarec_spark.transfer.candidates import Candidate, Candidates, Evaluation
from metarec_spark.transfer.modes import MODES
from metarec_spark.transfer.task_snapshot import TaskSnapshot


@pytest.fixture
def candidates(tmp_path: Path) -> Candidates:
    """Candidates for films, trained on a tiny snapshot."""
    manifest = TrainSpec.read(spec(tmp_path, settings())).manifest.model_copy(update={"training_events": 120})
    folder = tmp_path / "snapshot"
    (folder / "validation").rename(folder / "pairs")
    for split in ("validation", "test"):
        (folder / split).symlink_to("pairs")
    return Candidates(
        run="run",
        ds="2026-01-01",
        base=tmp_path / "base",
        work=tmp_path / "work",
        snapshots={"own": TaskSnapshot(folder, manifest, "films")},
        transitions=Transitions(),
        train=settings(),
        adapt=Adapt(training_events=600),
        threads=1,
    )


def encoder(place: Path) -> torch.Tensor:
    return artifact.load(place).model.item.weight


def test_the_model_that_serves_is_trained_on_all_events_as_its_validation_twin_was(tmp_path, candidates):
    for name in ("heuristic", "ranker"):
        candidates.evaluate(Candidate(MODES[name]))
    used = Candidate(MODES["from_scratch"])
    evaluation = candidates.evaluate(used)
    served = candidates.save(used, tmp_path / "served")
    assert served.metrics.kept_epoch == evaluation.epochs > 0
    assert (served.tuned["films"].params, served.tuned["films"].fusion) == (evaluation.tuned.params, evaluation.tuned.fusion)
    assert served.metrics.validation == {"films": evaluation.tuned.ndcg}
    assert artifact.measured(str(tmp_path / "served")) == f"{tmp_path}/served/twin"
    twin = candidates.save_twin(used, tmp_path / "twin")
    assert artifact.read_manifest(tmp_path / "served" / "twin") == twin
    assert (twin.model_id, twin.tuned, twin.mode) == (served.model_id, served.tuned, "from_scratch")
    assert not torch.equal(encoder(tmp_path / "served"), encoder(tmp_path / "twin"))
    assert np.array_equal(candidates.test_ndcg(used, tmp_path / "twin"), evaluation.test_ndcg)


def test_an_encoder_shares_the_pair_ranker_of_the_best_candidate_without_one(tmp_path, candidates):
    measured = {name: candidates.evaluate(Candidate(MODES[name])) for name in ("heuristic", "ranker")}
    ranker = measured["ranker"].pair_ranker
    for better, expected in (("ranker", ranker), ("heuristic", None)):
        for name, evaluation in measured.items():
            evaluation.ndcg[:] = float(name == better)
        used = Candidate(MODES["from_scratch"], seed=int(expected is None))
        assert candidates.evaluate(used).pair_ranker is expected
        candidates.save(used, tmp_path / f"served-{used.seed}")
        found = artifact.load(tmp_path / f"served-{used.seed}").pair_ranker
        assert (found is None) if expected is None else torch.equal(found.linear.weight, expected.linear.weight)


def test_a_baseline_shares_no_pair_ranker_with_a_transfer(candidates):
    known = {"heuristic": 0.1, "ranker": 0.2, "cross_domain_heuristic": 0.1, "meta_trained_ranker": 0.3}
    tuned = candidates.evaluate(Candidate(MODES["heuristic"])).tuned
    for name, mean in known.items():
        candidates.evaluations[Candidate(MODES[name])] = Evaluation(np.array([mean]), np.array([mean]), tuned, PairRanker(), 0.0)
    partners = {name: candidates._partner(Candidate(MODES[name])).mode.name for name in ("from_scratch", "joint", "fine_tuned")}
    assert partners == {"from_scratch": "ranker", "joint": "meta_trained_ranker", "fine_tuned": "meta_trained_ranker"}


def test_an_evaluation_that_was_interrupted_goes_on_with_the_trained_twin(candidates):
    candidates.evaluate(Candidate(MODES["heuristic"]))
    used = Candidate(MODES["from_scratch"])
    before = candidates.evaluate(used)
    trained = (Path(candidates.work) / "twins" / used.name / "manifest.json").stat().st_mtime_ns
    candidates.evaluations.clear()
    candidates.evaluate(Candidate(MODES["heuristic"]))
    after = candidates.evaluate(used)
    assert np.array_equal(after.ndcg, before.ndcg) and after.tuned == before.tuned
    assert (Path(candidates.work) / "twins" / used.name / "manifest.json").stat().st_mtime_ns == trained
