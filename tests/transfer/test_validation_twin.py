"""A rehearsal's counts are those of the same people without the newest event of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from model.factories import catalogue, contexts

from metarec_spark.config.sections import Transitions
from metarec_spark.model.catalogue import Catalogue, Successors
from metarec_spark.transfer.meta_train import followed
from metarec_spark.transfer.validation_twin import rehearsed

SETTINGS, ITEMS = Transitions(max_gap=3, gap_decay=0.5), 12
# Even items are books, odd ones films.
PEOPLE = [[1, 3, 2, 5, 4], [2, 4], [7], [5, 7, 1, 9], [6], [3, 1, 3]]
WITHOUT_NEWEST_FILM = [[1, 3, 2, 4], [2, 4], [], [5, 7, 1], [6], [3, 1]]


def counted(sequences: list[list[int]]) -> Catalogue:
    """A catalogue of all pairs of items, with the counts of these events, and of others that stay as they are."""
    forward = followed(contexts(sequences), ITEMS, SETTINGS).toarray() + np.eye(ITEMS, k=2)
    item, successor = np.nonzero(np.ones((ITEMS, ITEMS)))
    events = np.bincount(np.concatenate([*sequences, np.arange(ITEMS)]).astype(int), minlength=ITEMS)
    signals = forward[item, successor], forward[successor, item], (item + successor) / ITEMS
    return replace(catalogue(ITEMS), events=events, successors=Successors.of(ITEMS, item, successor, *signals))


def test_the_newest_event_of_each_person_in_the_domain_is_not_counted():
    found = rehearsed(counted(PEOPLE), contexts(PEOPLE), 1, SETTINGS)
    expected = counted(WITHOUT_NEWEST_FILM)
    assert found.events.tolist() == expected.events.tolist()
    for name in ("indptr", "indices", "forward", "backward", "similarity"):
        np.testing.assert_allclose(getattr(found.successors, name), getattr(expected.successors, name), atol=1e-6, err_msg=name)


@pytest.mark.parametrize("domain", [0, 1])
def test_pairs_that_are_not_among_the_strongest_are_passed_over(domain):
    whole = counted(PEOPLE)
    kept = np.arange(len(whole.successors.indices)) % 5 > 1
    row = np.repeat(np.arange(ITEMS), np.diff(whole.successors.indptr))[kept]
    of = whole.successors
    some = Successors.of(ITEMS, row, of.indices[kept], of.forward[kept], of.backward[kept], of.similarity[kept])
    found = rehearsed(replace(whole, successors=some), contexts(PEOPLE), domain, SETTINGS).successors
    expected = rehearsed(whole, contexts(PEOPLE), domain, SETTINGS).successors
    np.testing.assert_array_equal(found.forward, expected.forward[kept])
    np.testing.assert_array_equal(found.backward, expected.backward[kept])


def test_without_links_or_people_nothing_changes():
    none = catalogue(ITEMS)
    assert len(rehearsed(none, contexts(PEOPLE), 1, SETTINGS).successors.forward) == 0
    whole = counted(PEOPLE)
    found = rehearsed(whole, contexts([]), 1, SETTINGS)
    assert found.events.tolist() == whole.events.tolist()
    np.testing.assert_array_equal(found.successors.forward, whole.successors.forward)
