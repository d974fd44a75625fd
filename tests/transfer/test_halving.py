"""Which candidates a contest makes before the guard decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from model.factories import saved
from training.factories import settings, spec

from metarec_spark.config.sections import Adapt, Train, Transitions
from metarec_spark.model import artifact
from metarec_spark.model.ensemble.pair_ranker import PairRanker
from metarec_spark.training.spec import TrainSpec
from metarec_spark.transfer.candidates import Snapshot
from metarec_spark.transfer.halving import SuccessiveHalving
from metarec_spark.transfer.modes import MODES, Mode

PLAIN = [MODES[name] for name in ("untrained", "weighed")]
TRANSFERS = [MODES[name] for name in ("lent", "taught")]


@dataclass
class Told(SuccessiveHalving):
    """Of each candidate the mean is told; pairs are spread about it."""

    means: dict[str, float] = field(default_factory=dict)

    def make(self, mode: Mode, share: float, seed: int = 0) -> None:
        spread = np.random.default_rng(0).standard_normal(500)
        self.gains[mode.name, share, seed] = self.means[mode.name] + 0.01 * (spread - spread.mean())


@pytest.fixture
def halving(tmp_path: Path):
    def of(**means: float) -> Told:
        settings = (Transitions(), Train(), Adapt(seeds=3))
        told = Told("run", "2026-01-01", tmp_path, tmp_path, lambda learns: None, *settings, 1, means=means)
        for mode in (*PLAIN, *TRANSFERS):
            told.make(mode, 1.0)
        return told

    return of


def seeds(halving: Told) -> dict[str, int]:
    return {mode.name: sum(name == mode.name for name, _, _ in halving.gains) for mode in (*PLAIN, *TRANSFERS)}


def test_finalists_get_their_seeds_where_the_transfer_is_ahead(halving):
    held = halving(untrained=0.1, weighed=0.2, lent=0.1, taught=0.3)
    assert held.judged(PLAIN, TRANSFERS).used == "taught"
    assert seeds(held) == {"untrained": 1, "weighed": 3, "lent": 1, "taught": 3}


def test_a_candidate_that_takes_no_seed_is_made_once(halving):
    held = halving(untrained=0.2, weighed=0.1, lent=0.3, taught=0.1)
    assert held.judged(PLAIN, TRANSFERS).used == "lent"
    assert set(seeds(held).values()) == {1}


def test_a_transfer_that_is_behind_costs_no_more(halving):
    held = halving(untrained=0.1, weighed=0.3, lent=0.1, taught=0.2)
    verdict = held.judged(PLAIN, TRANSFERS)
    assert (verdict.used, verdict.winner) == ("weighed", "weighed")
    assert set(seeds(held).values()) == {1}


def test_without_transfers_the_best_plain_candidate_is_used(halving):
    held = halving(untrained=0.1, weighed=0.3, lent=0.1, taught=0.2)
    assert held.judged(PLAIN, []).used == "weighed"
    assert set(seeds(held).values()) == {1}


def test_rounds_cost_what_the_transfers_that_are_left_cost(halving):
    trained = ("pooled", "sample", "frozen", "finetuned")
    held = halving(
        untrained=0.2,
        weighed=0.2,
        lent=0.1,
        taught=0.1,
        scratch=0.3,
        pooled=0.1,
        sample=0.1,
        frozen=0.4,
        finetuned=0.5,
    )
    assert held.hold([MODES[name] for name in ("lent", *trained)]).used == "finetuned"
    shares = {
        name: sorted(share for mode, share, seed in held.gains if (mode, seed) == (name, 0)) for name in (*trained, "scratch")
    }
    out, second = [0.25], [0.25, 0.5]
    assert shares == {"pooled": out, "sample": out, "frozen": second, "finetuned": [*second, 1.0], "scratch": [1.0]}


def test_a_transfer_without_rival_gets_all_training_at_once(halving):
    held = halving(untrained=0.2, weighed=0.2, lent=0.1, taught=0.1, scratch=0.3, finetuned=0.1)
    assert held.hold([MODES["finetuned"]]).used == "scratch"
    assert {share for mode, share, _ in held.gains if mode == "finetuned"} == {1.0}


@pytest.mark.parametrize(
    ("untrained", "plain", "transfer"), [(0.1, "weighed", "taught"), (0.25, None, "taught"), (0.4, None, None)]
)
def test_a_trained_candidate_is_fused_with_the_best_that_has_no_f_and_takes_no_more_than_it(halving, untrained, plain, transfer):
    held, of = halving(untrained=untrained, weighed=0.2, lent=0.1, taught=0.3), {}
    for seed, name in enumerate(("weighed", "taught")):
        torch.manual_seed(seed)
        of[name] = PairRanker()
        saved(Path(held.folder(name)), pair_ranker=of[name])
    for name in ("untrained", "lent"):
        saved(Path(held.folder(name)))
    for mode, expected in (("scratch", plain), ("finetuned", transfer), ("pooled", transfer)):
        found = held._pair_ranker(MODES[mode])
        assert (found is None) if expected is None else torch.equal(found.linear.weight, of[expected].linear.weight)


def test_a_trained_candidate_is_judged_rehearsed_and_serves_what_it_learnt_of_all_events(tmp_path):
    manifest = TrainSpec.read(spec(tmp_path, settings())).manifest.model_copy(update={"training_events": 120})
    (tmp_path / "snapshot" / "validation").rename(tmp_path / "snapshot" / "pairs")
    for split in ("validation", "test"):
        (tmp_path / "snapshot" / split).symlink_to("pairs")
    of = Snapshot(tmp_path / "snapshot", manifest, "films")
    base, work = tmp_path / "base", tmp_path / "work"
    chosen = Transitions(), settings(), Adapt(training_events=600)
    held = SuccessiveHalving("run", "2026-01-01", base, work, lambda learns: of, *chosen, 1)
    held.plain()
    scratch = MODES["scratch"]
    for share, seed in ((0.5, 0), (1.0, 0), (1.0, 1)):
        held.make(scratch, share, seed)
    made = {key: artifact.saved(held.folder("scratch", *key)) for key in ((0.5, 0), (1.0, 0), (1.0, 1))}
    assert made == {(0.5, 0): False, (1.0, 0): True, (1.0, 1): False}, "one may come to serve"
    rehearsed, serves = (artifact.load(f"{held.folder('scratch')}{end}") for end in ("-rehearsed", ""))
    assert serves.manifest.metrics.epochs == rehearsed.manifest.metrics.kept_epoch
    assert (serves.fusion, serves.params) == (rehearsed.fusion, rehearsed.params)
    assert serves.manifest.metrics.validation == rehearsed.manifest.metrics.validation
    assert not torch.equal(serves.model.item.weight, rehearsed.model.item.weight)
    before = dict(held.gains)
    for known in (held.gains, held.test, held.seconds):
        known.clear()
    held.plain()
    held.make(scratch, 1.0)
    assert np.array_equal(held.gains["scratch", 1.0, 0], before["scratch", 1.0, 0]), "what was made is not made again"
