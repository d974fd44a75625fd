"""The validation twin's counts are those of the same users without the newest event of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from model.factories import catalogue, contexts

from metarec_spark.config.sections import Transitions
from metarec_spark.model.catalogue import Catalogue, Successors
from metarec_spark.transfer.meta_train import transition_counts
from metarec_spark.transfer.validation_twin import twin_catalogue

SETTINGS, ITEMS = Transitions(max_gap=3, gap_decay=0.5), 12
# Even items are books, odd ones films.
USERS = [[1, 3, 2, 5, 4], [2, 4], [7], [5, 7, 1, 9], [6], [3, 1, 3]]
WITHOUT_NEWEST_FILM = [[1, 3, 2, 4], [2, 4], [], [5, 7, 1], [6], [3, 1]]


def counted(sequences: list[list[int]]) -> Catalogue:
    """A catalogue of all pairs of items, with the counts of these events and of a fixed rest."""
    forward = transition_counts(contexts(sequences), ITEMS, SETTINGS).toarray() + np.eye(ITEMS, k=2)
    item, successor = np.nonzero(np.ones((ITEMS, ITEMS)))
    events = np.bincount(np.concatenate([*sequences, np.arange(ITEMS)]).astype(int), minlength=ITEMS)
    signals = forward[item, successor], forward[successor, item], (item + successor) / ITEMS
    return replace(catalogue(ITEMS), events=events, successors=Successors.from_pairs(ITEMS, item, successor, *signals))


def test_the_newest_event_of_each_user_in_the_domain_is_not_counted():
    found = twin_catalogue(counted(USERS), contexts(USERS), 1, SETTINGS)
    expected = counted(WITHOUT_NEWEST_FILM)
    assert found.events.tolist() == expected.events.tolist()
    for name in ("indptr", "indices", "forward", "backward", "similarity"):
        np.testing.assert_allclose(getattr(found.successors, name), getattr(expected.successors, name), atol=1e-6, err_msg=name)


@pytest.mark.parametrize("domain", [0, 1])
def test_pairs_that_are_not_among_the_strongest_are_ignored(domain):
    whole = counted(USERS)
    kept = np.arange(len(whole.successors.indices)) % 5 > 1
    row = np.repeat(np.arange(ITEMS), np.diff(whole.successors.indptr))[kept]
    of = whole.successors
    some = Successors.from_pairs(ITEMS, row, of.indices[kept], of.forward[kept], of.backward[kept], of.similarity[kept])
    found = twin_catalogue(replace(whole, successors=some), contexts(USERS), domain, SETTINGS).successors
    expected = twin_catalogue(whole, contexts(USERS), domain, SETTINGS).successors
    np.testing.assert_array_equal(found.forward, expected.forward[kept])
    np.testing.assert_array_equal(found.backward, expected.backward[kept])


def test_without_successors_or_users_nothing_changes():
    none = catalogue(ITEMS)
    assert len(twin_catalogue(none, contexts(USERS), 1, SETTINGS).successors.forward) == 0
    whole = counted(USERS)
    found = twin_catalogue(whole, contexts([]), 1, SETTINGS)
    assert found.events.tolist() == whole.events.tolist()
    np.testing.assert_array_equal(found.successors.forward, whole.successors.forward)
