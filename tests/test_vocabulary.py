"""Names are the field's terms: no private word in an identifier of the package, the jobs or the benchmarks.

docs/glossary.md has the terms to use instead.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("metarec_spark", "jobs", "benchmarks")
PRIVATE = {
    "ballot": "history weight",
    "ballots": "history weights",
    "contest": "successive halving, comparison",
    "guard": "negative-transfer test",
    "lend": "transfer",
    "lending": "transition parameters",
    "lends": "transfers",
    "lent": "transitions, transition weights",
    "lesson": "meta-training task",
    "lessons": "meta-training tasks",
    "likeness": "similarity, importance weights",
    "newcomer": "new item",
    "newcomers": "new items",
    "performed": "refit",
    "rehearsal": "validation twin",
    "rehearsed": "without the newest event, validation twin",
    "settled": "tuned",
    "spectrum": "eigenvalues, spectral",
    "taught": "trained, meta-trained",
    "teach": "train",
    "teaching": "meta-training",
    "telling": "pending handles",
    "tell": "send, all-gather",
    "told": "sent, reported",
    "theirs": "the noun",
    "vote": "history weight",
    "votes": "history weights",
    "weighed": "weighted",
    "weigher": "pair ranker",
}
"""Part of a name → the term to use."""
PRIVATE_ALONE = {
    "alike": "similar items, similarity",
    "asked": "the noun: targets, requested users",
    "came": "new items",
    "found": "the noun: rows, results",
    "held": "held_out, cached",
    "kept": "the noun: reusable, counts",
    "made": "the noun: model, folder",
    "mine": "the noun: this rank's rows",
    "near": "windows, neighbours",
    "of": "the noun: row, part, name",
    "offer": "eligible items",
    "place": "local item index, position, location",
    "places": "local item indices, positions",
    "said": "message, metadata, record",
    "shaped": "fingerprint",
    "verdict": "decision",
}
"""Whole name → what to use; as a part of a longer name these words are plain English."""
ALLOWANCE = {"metarec_spark": 0, "jobs": 0, "benchmarks": 0}
"""Private names that are left; these numbers only shrink."""


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a source binds, with its line: functions, classes, arguments, variables, attributes, imports under a new name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, 0


def term(name: str) -> str | None:
    """The term to use in place of a name's private word; None if it has none."""
    if name.strip("_") in PRIVATE_ALONE:
        return PRIVATE_ALONE[name.strip("_")]
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return next((PRIVATE[part.lower()] for part in parts if part.lower() in PRIVATE), None)


def private_names(folder: str) -> list[str]:
    """Each private name with its place and the term to use, and each module that has a private word in its name."""
    files = sorted((ROOT / folder).rglob("*.py"))
    names = [(file, name, line) for file in files for name, line in bound_names(ast.parse(file.read_text(encoding="utf-8")))]
    names += [(file, file.stem, 0) for file in files]
    return [f"{file.relative_to(ROOT)}:{line}: {name} (use: {term(name)})" for file, name, line in names if term(name)]


def test_the_reader_of_names_sees_every_kind_of_binding():
    source = "import a as votes\nclass Lent:\n    told: int\ndef f(mine, *of):\n    for place, x.made in y: held = (kept := 1)\n"
    names = [name for name, _ in bound_names(ast.parse(source))]
    assert sorted(name for name in names if term(name)) == sorted(
        ["votes", "Lent", "told", "mine", "of", "place", "made", "held", "kept"]
    )


@pytest.mark.parametrize(
    "name", ["held_out", "placed", "guarded", "kept_epoch", "from_columns", "foundation", "safeguard", "violent"]
)
def test_a_plain_word_is_no_private_one(name: str):
    assert term(name) is None


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_name_has_a_private_word(folder: str):
    private = private_names(folder)
    assert len(private) <= ALLOWANCE[folder], f"{len(private)} private names, {ALLOWANCE[folder]} allowed:\n" + "\n".join(private)
