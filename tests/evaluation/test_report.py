"""The report's page: its numbers, that any model can be shown, and that nothing in it can act."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from metarec_spark import columns as c
from metarec_spark.evaluation.metrics import SEGMENTS
from metarec_spark.evaluation.report import forget, write
from metarec_spark.evaluation.summary import Example, Histogram, ListedItem, Metric, Report
from metarec_spark.model.manifest import Epoch

HOSTILE = "<script>alert(1)</script>"
VALUE = {c.MODEL: 0.0712, c.ENCODER: 0.0611, c.TRANSITIONS_TUNED: 0.0603, c.TRANSITIONS: 0.0501, c.POPULARITY: 0.0055}


def metrics(domain: str, scale: float = 1.0) -> list[Metric]:
    return [
        Metric(domain=domain, segment=segment, scorer=scorer, metric=metric, k=10, value=factor * value * scale, users=1000)
        for segment in SEGMENTS[:4]
        for scorer, value in VALUE.items()
        for metric, factor in (("ndcg", 1.0), ("hit_rate", 1.5))
    ]


def epoch(number: int, platforms: int) -> Epoch:
    ndcg = 0.01 * number
    return Epoch(
        loss=9.0 - number,
        loss_by_domain=[9.0 - number] * platforms,
        validation_ndcg=ndcg,
        validation_ndcg_by_domain=[ndcg] * platforms,
        seconds=3.0,
        sequences=9,
        steps=1,
    )


def example(**fields: object) -> Example:
    items = [ListedItem(name="another", score=3.5, held_out=False), ListedItem(name="the one", score=2.25, held_out=True)]
    made = Example(domain="books", user_id=HOSTILE, history=["older", HOSTILE], target="the one", rank=2, items=items)
    return made.model_copy(update=fields)


def report(domains: tuple[str, ...] = ("books", "films"), **fields: object) -> Report:
    made = Report(
        model_id="2024-01-10-abc",
        ds="2024-01-10",
        status="approved",
        reason="because",
        facts={"items": "42"},
        history=[epoch(n, len(domains)) for n in (1, 3, 2)],
        domains=list(domains),
        metrics=[row for n, d in enumerate(domains) for row in metrics(d, 1 - n / 10)],
        parameters={d: {"ensemble: transitions": 4.0} for d in domains},
        histograms={d: Histogram(edges=[0.0, 1.0, 2.0, 3.0], targets=[5, 2, 0], top=[0, 1, 9]) for d in domains},
        examples=[example()],
    )
    return made.model_copy(update=fields)


def page(folder: Path, shown: Report) -> str:
    return write(folder, shown).read_text(encoding="utf-8")


class Balanced(HTMLParser):
    """Fails on a tag that is closed but not open."""

    VOID = ("meta", "br", "path")

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


def test_the_examples_of_erased_users_are_removed_from_page_and_data_and_no_others(tmp_path):
    ids = ["u1", "u10", "a&b", "x\ry\nz", HOSTILE]
    shown = report(examples=[example(user_id=user, target=f"target {n}") for n, user in enumerate(ids)])
    before = page(tmp_path, shown)
    assert not forget(tmp_path / "report.html", ["u", "1", "nobody", "target 0"])
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before
    assert forget(tmp_path / "report.html", ["u1", "x\ry\nz", "a&b", HOSTILE])
    after = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "target 1" in text(after) and not [n for n in (0, 2, 3, 4) if f"target {n}" in text(after)]
    assert after == page(tmp_path / "other", shown.model_copy(update={"examples": [shown.examples[1]]}))
    data = json.loads((tmp_path / "report.json").read_text())
    assert [each["user_id"] for each in data["examples"]] == ["u10"]
    assert not forget(tmp_path / "report.html", ["u1"])


@pytest.mark.parametrize("data", [None, '{"of another version": 1}'])
def test_a_page_of_another_version_is_deleted_if_it_shows_an_erased_user(tmp_path, data):
    old = tmp_path / "report.html"
    old.write_text('<article class="card example"><h3>User <bdi>a&amp;b</bdi></h3></article>', encoding="utf-8")
    if data:
        (tmp_path / "report.json").write_text(data)
    assert not forget(old, ["a", "b"]) and old.exists()
    assert forget(old, ["x", "a&b"])
    assert not list(tmp_path.iterdir())


def test_the_page_shows_what_was_measured(tmp_path):
    seen = text(page(tmp_path, report()))
    for words in (
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
    ):
        assert words in seen, words
    assert "all platforms 0.0676" in seen, "the mean over both platforms"
    assert "0.0300 in epoch 2" in seen
    assert "held out" in seen


def test_the_best_of_a_row_is_marked(tmp_path):
    made = page(tmp_path, report())
    assert re.search(r'class="best">0\.0712', made) and not re.search(r'class="best">0\.0611', made)


def test_equal_values_have_no_best(tmp_path):
    rows = [row.model_copy(update={"value": 0.0}) for row in metrics("books")]
    assert 'class="best"' not in page(tmp_path, report(("books",), metrics=rows))


def test_a_value_that_was_not_measured_is_a_dash(tmp_path):
    rows = [row for row in metrics("books") if row.scorer != c.ENCODER] + [
        row for row in metrics("films") if row.segment == "all"
    ]
    seen = text(page(tmp_path, report(metrics=rows)))
    assert re.search(r"books 0\.0712 best — 0\.0603", seen), "nothing is known of f in books"
    assert len(re.findall("few events", seen)) == 1, "no pair of films is in the segment"


def test_segments_compare_the_model_with_the_best_baseline(tmp_path):
    seen = text(page(tmp_path, report(("books",))))
    assert "model transitions model transitions events all 0.0712 best 0.0501 0.1068 best 0.07" in seen


def test_every_drawing_is_described_in_words(tmp_path):
    made = page(tmp_path, report())
    drawings = re.findall(r'<svg [^>]*aria-labelledby="([^"]+)"><title id="([^"]+)">([^<]+)', made)
    assert len(drawings) == made.count("<svg ") == 4
    assert all(label == title for label, title, _ in drawings)
    assert {words for *_, words in drawings} >= {
        "Loss by epoch: 8 in the first, 7 in the last of 3",
        "Scores in books: held-out items most often from 0 to 1, top items most often from 2 to 3",
    }
    assert len(re.findall(r"<th\b", made)) == made.count("<th scope=") > 0


def test_curves_and_distributions_are_drawn_in_proportion(tmp_path):
    made = page(tmp_path, report(("books",)))
    # Losses 8, 6, 7 between ticks at 6 and 8; counts 5, 2, 0 of at most 10.
    assert 'class="d0" d="M46.0 8.0 L219.0 150.0 L392.0 79.0"' in made
    assert 'class="filled" d="M46.0 150.0 V79.0 H161.3 V121.6 H276.7 V150.0 H392.0 V150.0"' in made


def test_an_item_below_the_list_keeps_its_rank(tmp_path):
    below = example(rank=4321, items=[ListedItem(name="another", score=3.5, held_out=False)])
    made = page(tmp_path, report(examples=[below]))
    assert "Then came the one : rank 4,321." in text(made)
    assert 'class="target"' not in made


def test_scores_that_are_all_the_same_can_be_drawn(tmp_path):
    flat = {
        "books": Histogram(edges=[2.0] * 4, targets=[3, 0, 0], top=[3, 0, 0]),
        "films": Histogram(edges=[], targets=[], top=[]),
    }
    made = page(tmp_path, report(histograms=flat))
    assert "Scores in books" in made and "Scores in films" not in made


def test_names_cannot_act(tmp_path):
    made = page(tmp_path, report(domains=(HOSTILE, "films"), reason=HOSTILE, facts={HOSTILE: HOSTILE}))
    assert "<script" not in made
    assert made.count("&lt;script&gt;") > 5
    assert "default-src 'none'" in made


def test_the_page_needs_no_other_file_and_is_well_formed(tmp_path):
    made = page(tmp_path, report())
    assert not re.findall(r"""(?:src|href)="(?!#)|url\((?!#)|@import|https?://""", made)
    parser = Balanced()
    parser.feed(made)
    assert not parser.open
    ids = re.findall(r'\sid="([^"]+)"', made)
    assert len(ids) == len(set(ids))


def test_the_same_report_gives_the_same_bytes(tmp_path):
    assert page(tmp_path, report()) == page(tmp_path, report())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert Report.model_validate_json((tmp_path / "report.json").read_text()) == report()


@pytest.mark.parametrize("count", [1, 5, 9])
def test_any_number_of_platforms(tmp_path, count):
    names = tuple(f"platform{n}" for n in range(count))
    seen = text(page(tmp_path, report(domains=names)))
    assert all(name in seen for name in names)
    assert ("all platforms" in seen) == (count > 1)


def test_a_model_with_nothing_held_out_says_so(tmp_path):
    unmeasured = [
        epoch(1, 2).model_copy(
            update={"loss_by_domain": [2.0, None], "validation_ndcg": None, "validation_ndcg_by_domain": [None] * 2}
        )
    ]
    seen = text(page(tmp_path, report(metrics=[], history=unmeasured, histograms={}, examples=[], parameters={})))
    assert "Nothing was held out" in seen
    assert "in epoch" not in seen and "Validation NDCG@10 by epoch" not in seen
    assert "Without validation events" in seen and "There are none: no held-out item was ranked" in seen
    assert "No epochs were recorded" in text(page(tmp_path, report(history=[])))
