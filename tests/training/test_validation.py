"""What lists may hold while a model is trained."""

from __future__ import annotations

import numpy as np
import pytest
from model.factories import MANIFEST, PLAIN, contexts

from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.held_out import HeldOutEvents
from metarec_spark.model.manifest import DomainSettings
from metarec_spark.model.transitions import TransitionParams
from metarec_spark.training.distributed import SingleProcess
from metarec_spark.training.validation import listable, seen_allowed


def held(repeats: int, others: int) -> HeldOutEvents:
    """Of books: so many users who come back to an item, and so many who do not."""
    targets = np.array([2] * repeats + [6] * others)
    return HeldOutEvents(0, contexts([[4, 2, 8]] * len(targets)), targets, np.arange(1, len(targets) + 1))


@pytest.mark.parametrize(
    ("setting", "repeats", "expected"),
    [
        ("auto", 2, True),
        ("auto", 1, False),
        (True, 9, False),
        (False, 0, True),
        ({"books": True}, 9, False),
        ({"films": False}, 2, True),
    ],
)
def test_seen_items_are_allowed_as_configured_or_by_the_share_of_repeats(setting, repeats, expected, caplog):
    caplog.set_level("INFO", "metarec_spark")
    manifest, events = MANIFEST.model_copy(update={"exclude_seen": setting}), held(repeats, 10 - repeats)
    (books, _) = allowed = seen_allowed([events], manifest, SingleProcess())
    assert books == expected
    assert f"platform books: {10 * repeats} % of 10 held-out events are repeats; lists" in caplog.text
    (part,) = listable([events], allowed)
    assert (part.seen_allowed, len(part.target)) == (expected, 10 if expected else 10 - repeats)


def test_without_held_out_events_a_platform_inherits_the_choice():
    found = DomainSettings(params=TransitionParams(**PLAIN), fusion=Fusion(), seen_allowed=True)
    auto = MANIFEST.model_copy(update={"exclude_seen": "auto", "inherited": {"films": found}})
    assert seen_allowed([], auto, SingleProcess()) == [False, True]
    assert seen_allowed([], auto.model_copy(update={"exclude_seen": True}), SingleProcess()) == [False, False]
