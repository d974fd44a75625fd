"""The repeat term of the ensemble: own items by decayed count, in the dense scores and in the lists alike."""

from __future__ import annotations

import numpy as np
import pytest
from model.factories import as_recommended, contexts, saved

from metarec_spark.model import artifact
from metarec_spark.model.repeats import RepeatParams, own_events, repeat_scores
from metarec_spark.model.scorer import Scorer

ITEMS = np.arange(0, 20, 2)


def test_own_events_count_less_with_their_age_on_the_platform():
    # Items of the other platform are odd: they neither count nor make the others older.
    found = own_events(contexts([[2, 4, 3, 2], [5], [6]]), 0, ITEMS, 0.5).toarray()
    expected = np.zeros((3, 10))
    expected[0, 1], expected[0, 2], expected[2, 3] = 1 + 0.25, 0.5, 1
    np.testing.assert_allclose(found, expected)


def test_the_term_grows_with_the_logarithm_of_the_count():
    found = repeat_scores(contexts([[2, 4, 2]]), 0, ITEMS, RepeatParams(weight=3.0, decay=1.0)).toarray()
    np.testing.assert_allclose(found[0, [1, 2]], 3 * np.log([3, 2]), rtol=1e-6)
    assert (found > 0).sum() == 2


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_lists_and_dense_scores_have_the_same_repeat_term(tmp_path, weight):
    folder = saved(tmp_path / "model", repeats=RepeatParams(weight=weight))
    scorer, users = Scorer(artifact.load(folder)), contexts([[2, 4, 2], [1, 3], [6]])
    hidden = scorer.hidden(users)
    dense = scorer.ensemble_scores(scorer.encoder_scores(hidden, 0), users, 0)
    np.testing.assert_allclose(dense.numpy(), as_recommended(scorer, users, hidden, 0).numpy(), rtol=1e-4, atol=1e-4)
    term = scorer.artifact.terms[0].additions(users)
    if not weight:
        assert term is None
        return
    term = term.toarray()
    np.testing.assert_allclose(term[0, [1, 2]], weight * np.log1p([1 + 0.8**2, 0.8]), rtol=1e-6)
