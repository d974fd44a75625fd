"""The report's page: what it says, that it says it of any model, and that nothing in it can act."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from metarec_spark import columns as c
from metarec_spark.config.sections import Transitions
from metarec_spark.evaluation.metrics import SEGMENTS
from metarec_spark.evaluation.report import Report, forget, write
from metarec_spark.model.ensemble.fusion import Fusion
from metarec_spark.model.manifest import DomainSettings, Epoch
from metarec_spark.model.transitions import TransitionParams

HOSTILE = "<script>alert(1)</script>"
VALUE = {c.MODEL: 0.0712, c.ENCODER: 0.0611, c.TRANSITIONS_TUNED: 0.0603, c.TRANSITIONS: 0.0501, c.POPULARITY: 0.0055}


def metrics(domain: str, scale: float = 1.0) -> list[dict]:
    return [
        {"split": split, "domain": domain, "segment": segment, "scorer": scorer, "metric": metric, "k": 10, "value": value * scale, "users": 1000}
        for split in ("test", "validation") for segment in SEGMENTS[:4] for scorer, value in VALUE.items()
        for metric, value in (("ndcg", value), ("hit_rate", 1.5 * value))
        for value in [value * (1 if split == "test" else 7)]
    ]  # fmt: skip


def report(domains: tuple[str, ...] = ("books", "films"), **fields: object) -> Report:
    count = len(domains)
    history = [
        Epoch(loss=9.0 - n, loss_by_domain=[9.0 - n] * count, validation_ndcg=0.01 * n, validation_ndcg_by_domain=[0.01 * n] * count, seconds=3.0, sequences=9, steps=1)
        for n in (1, 3, 2)
    ]  # fmt: skip
    found = dict.fromkeys(domains, DomainSettings(params=TransitionParams.from_settings(Transitions()), fusion=Fusion()))
    histogram = {d: {"edges": [0.0, 1.0, 2.0, 3.0], "targets": [5, 2, 0], "best": [0, 1, 9]} for d in domains}
    example = {"domain": domains[0], "user_id": HOSTILE, "history": ["older", HOSTILE], "target": "the one", "rank": 2,
               "items": [["another", 3.5, False], ["the one", 2.25, True]]}  # fmt: skip
    made = Report(
        model_id="2024-01-10-abc", ds="2024-01-10", status="approved", reason="because", facts={"items": "42"}, history=history,
        domains=list(domains), metrics=[row for n, d in enumerate(domains) for row in metrics(d, 1 - n / 10)], settings=found,
        histogram=histogram, examples=[example],
    )  # fmt: skip
    return replace(made, **fields)


def page(folder: Path, of: Report) -> str:
    return write(folder, of).read_text(encoding="utf-8")


class Balanced(HTMLParser):
    """Fails on a tag that is closed but not open."""

    VOID = ("meta", "br", "path", "use")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open and self.open.pop() == tag, (tag, self.getpos())


def text(page: str) -> str:
    """What a reader sees."""
    body = re.sub(r"<style.*?</style>|<svg.*?</svg>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def test_the_page_says_where_a_network_stacks(tmp_path):
    made = report()
    assert "stacked" not in text(page(tmp_path, made))
    made.settings["films"] = made.settings["films"].model_copy(update={"stacked": True})
    assert "stacked by a network, 1 = yes 0 1" in text(page(tmp_path, made))


def test_the_examples_of_the_forgotten_are_taken_out_and_no_others(tmp_path):
    ids = ["u1", "u10", "a&b", "x\ry\nz", HOSTILE]
    (example,) = report().examples
    made = report(examples=[example | {"user_id": user, "target": f"target {n}"} for n, user in enumerate(ids)])
    before = page(tmp_path, made)
    assert not forget(tmp_path / "report.html", ["u", "1", "nobody", "target 0"])
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before
    assert forget(tmp_path / "report.html", ["u1", "x\ry\nz", "a&b", HOSTILE])
    after = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "target 1" in text(after) and not [n for n in (0, 2, 3, 4) if f"target {n}" in text(after)]
    Balanced().feed(after)
    assert not forget(tmp_path / "report.html", ["u1"])


def test_what_was_measured_stands_in_the_page(tmp_path):
    seen = text(page(tmp_path, report()))
    for said in (
        "2024-01-10-abc",
        "approved",
        "because",
        "42",
        "books",
        "films",
        "0.0712",
        "0.0641",
        "0.1068",
        "the one",
        "2.25",
        "held out",
    ):
        assert said in seen, said
    assert "all domains 0.0676" in seen, "the mean over both domains"
    assert "0.4984" not in seen, "the validation split is not shown"
    assert "0.0300 in epoch 2" in seen


def test_the_best_of_a_row_is_marked(tmp_path):
    assert re.search(r"<strong>0\.0712</strong>", page(tmp_path, report()))
    assert not re.search(r"<strong>0\.0611</strong>", page(tmp_path, report()))


def test_equal_values_have_no_best(tmp_path):
    rows = [{**row, "value": 0.0} for row in metrics("books")]
    assert 'class="best"' not in page(tmp_path, report(("books",), metrics=rows))


def test_what_a_segment_or_a_scorer_lacks_is_a_dash(tmp_path):
    rows = [row for row in metrics("books") if row["scorer"] != c.ENCODER] + [
        row for row in metrics("films") if row["segment"] == "all"
    ]
    made = page(tmp_path, report(metrics=rows))
    assert "few events — — — — 0" in text(made), "no pair of films is in the segment"
    assert re.search(r"books 0\.0712 best — 0\.0603", text(made)), "nothing is known of f in books"
    assert SEGMENTS[4].replace("_", " ") in text(made)


def test_every_drawing_is_told_in_words_and_every_heading_says_what_it_heads(tmp_path):
    made = page(tmp_path, report())
    drawings = re.findall(r'<svg [^>]*aria-labelledby="([^"]+)"><title id="([^"]+)">([^<]+)', made)
    assert len(drawings) == made.count("<svg ") == 6
    assert all(label == title for label, title, _ in drawings)
    said = [words for *_, words in drawings]
    assert "Loss by epoch: 8 in the first, 7 in the last of 3" in said
    assert any(words.startswith("NDCG@10 in films: model 0.0641, base 0.0550") for words in said)
    assert "Scores in books: held-out items most often from 0 to 1, top items most often from 2 to 3" in said
    assert len(re.findall(r"<th\b", made)) == made.count("<th scope=") > 0


def test_the_numbers_of_an_epoch_stand_beside_the_curves(tmp_path):
    assert "2 6.0000 6.0000 6.0000 0.0300 0.0300 0.0300 3.0" in text(page(tmp_path, report()))


def test_a_name_that_looks_like_a_colour_of_the_drawings_stays_as_it_is(tmp_path):
    made = page(tmp_path, report(domains=("#010000", "#090009")))
    assert "NDCG@10 in #010000: model" in made and "NDCG@10 in #090009: model" in made


def test_an_item_below_the_list_is_said_to_rank_there(tmp_path):
    below = {
        "domain": "books",
        "user_id": "u",
        "history": [],
        "target": "the one",
        "rank": 4321,
        "items": [["another", 3.5, False]],
    }
    made = page(tmp_path, report(examples=[below]))
    assert "Then came the one : rank 4,321." in text(made)
    assert "held out</span>" not in made and 'class="target"' not in made


def test_scores_that_are_all_the_same_can_be_drawn(tmp_path):
    flat = {
        "books": {"edges": [2.0] * 4, "targets": [3, 0, 0], "best": [3, 0, 0]},
        "films": {"edges": [], "targets": [], "best": []},
    }
    made = page(tmp_path, report(histogram=flat))
    assert "Scores in books" in made and "Scores in films" not in made


def test_names_cannot_act(tmp_path):
    made = page(tmp_path, report(domains=(HOSTILE, "films"), reason=HOSTILE, facts={HOSTILE: HOSTILE}))
    assert "<script" not in made
    assert made.count("&lt;script&gt;") > 5
    assert "default-src 'none'" in made


def test_the_page_needs_nothing_from_elsewhere_and_is_well_formed(tmp_path):
    made = page(tmp_path, report())
    assert not re.findall(r"""(?:src|href)="(?!#)|url\((?!#)|@import|https?://""", made)
    parser = Balanced()
    parser.feed(made)
    assert not parser.open
    ids = re.findall(r'\sid="([^"]+)"', made)
    assert len(ids) == len(set(ids))


def test_the_same_report_gives_the_same_bytes(tmp_path):
    assert page(tmp_path, report()) == page(tmp_path, report())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html"]


@pytest.mark.parametrize("count", [1, 5, 9])
def test_any_number_of_domains(tmp_path, count):
    names = tuple(f"domain{n}" for n in range(count))
    seen = text(page(tmp_path, report(domains=names)))
    assert all(name in seen for name in names)
    assert ("all domains" in seen) == (count > 1)


def test_a_model_with_nothing_held_out_says_so(tmp_path):
    unmeasured = [
        Epoch(
            loss=2.0,
            loss_by_domain=[2.0, None],
            validation_ndcg=None,
            validation_ndcg_by_domain=[None, None],
            seconds=1,
            sequences=1,
            steps=1,
        )
    ]
    seen = text(page(tmp_path, report(metrics=[], history=unmeasured, histogram={}, examples=[], settings={})))
    assert "Nothing was held out" in seen
    assert "NDCG@10 in" not in seen and "in epoch" not in seen
    assert "Without a validation split" in seen and "There are none: no held-out item was ranked" in seen
    assert "No epochs were recorded" in text(page(tmp_path, report(history=[])))
