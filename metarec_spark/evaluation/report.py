"""The report of one evaluated model: report.html, a page without scripts or external resources, and report.json, its data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import escape
from pydantic import ValidationError

from metarec_spark import columns as c
from metarec_spark.evaluation.metrics import METRICS, SEGMENTS
from metarec_spark.evaluation.summary import Histogram, Report
from metarec_spark.model.ranking import CUTOFF
from metarec_spark.warehouse.storage import Location, atomic_write, exists, local_path, read_bytes, remove

_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 392.0, 8.0, 150.0  # the plot area within 400 × 180


def write(folder: Location, report: Report) -> Location:
    """Write the page and its data beside the model, and return the page's place; the same report gives the same bytes."""
    page = f"{folder}/report.html"
    for location, text in ((page, _page(report)), (_data(page), report.model_dump_json(indent=1) + "\n")):
        with atomic_write(location) as draft:
            draft.write_text(text, encoding="utf-8", newline="")
    return local_path(page) or page


def forget(page: Location, users: Iterable[str]) -> bool:
    """Remove these users' examples from a page and its data, and return whether there were any.

    A page of an older version, whose data are not there or not readable, is deleted if it shows one of the users.
    """
    erased = set(users)
    try:
        report = Report.model_validate_json(read_bytes(_data(page))) if exists(_data(page)) else None
    except ValidationError:
        report = None
    if report is None:
        text = read_bytes(page).decode()
        shown = any(f"<bdi>{escape(user)}</bdi>" in text for user in erased)
        for location in (page, _data(page)) if shown else ():
            remove(location)
        return shown
    examples = [example for example in report.examples if example.user_id not in erased]
    if len(examples) == len(report.examples):
        return False
    write(str(page).rpartition("/")[0], report.model_copy(update={"examples": examples}))
    return True


def _data(page: Location) -> str:
    return str(page).removesuffix(".html") + ".json"


@dataclass(frozen=True)
class _Row:
    """A row of a table: name, number of pairs, and values, None if not measured."""

    name: str
    users: int
    values: list[float | None]

    def best(self, column: int, compared: int) -> bool:
        """Return whether a value is the largest in its block of so many columns, and another one is smaller."""
        start = column // compared * compared
        known = {value for value in self.values[start : start + compared] if value is not None}
        return len(known) > 1 and self.values[column] == max(known)


@dataclass(frozen=True)
class _Table:
    name: str
    columns: list[str]
    rows: list[_Row]
    compared: int = 0
    """Columns that are compared with each other, from the left; 0: none is."""


@dataclass(frozen=True)
class _Chart:
    """Lines in a plot area of 400 × 180: (colour, SVG path) each, and labelled ticks."""

    title: str
    description: str
    lines: list[tuple[str, str]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


class _Metrics:
    """The test metrics by (domain, segment, scorer, metric, k), and the tables made of them."""

    def __init__(self, report: Report) -> None:
        self.domains = report.domains
        self.by_key = {(m.domain, m.segment, m.scorer, m.metric, m.k): m for m in report.metrics}
        self.scorers = [scorer for scorer in c.SCORERS if any(key[2] == scorer for key in self.by_key)]

    def row(self, name: str, keys: Sequence[tuple[str, str, str, str, int]]) -> _Row:
        metrics = [self.by_key.get(key) for key in keys]
        return _Row(name, max((m.users for m in metrics if m), default=0), [m.value if m else None for m in metrics])

    def by_scorer(self, metric: str) -> _Table:
        """Return a row per platform, and one of the mean over all pairs if there are several."""
        rows = [self.row(d, [(d, "all", s, metric, CUTOFF) for s in self.scorers]) for d in self.domains]
        measured = [row for row in rows if row.users]
        if len(measured) > 1:
            users = sum(row.users for row in measured)
            columns = zip(*[row.values for row in measured], strict=True)
            means = [
                None if None in column else sum((v or 0.0) * r.users for v, r in zip(column, measured, strict=True)) / users
                for column in columns
            ]
            rows.append(_Row("all platforms", users, means))
        return _Table({"ndcg": "NDCG", "hit_rate": "HR"}[metric] + f"@{CUTOFF}", self.scorers, rows, len(self.scorers))

    def by_segment(self, domain: str) -> _Table:
        """Return NDCG and HR of the model and of the platform's best baseline in each segment."""
        ndcg = {s: m.value for s in c.BASELINES if (m := self.by_key.get((domain, "all", s, "ndcg", CUTOFF)))}
        pair = (c.MODEL, max(ndcg, key=lambda scorer: ndcg[scorer], default=c.POPULARITY))
        keys = [(s, metric) for metric in ("ndcg", "hit_rate") for s in pair]
        rows = [
            self.row(g.replace("_", " "), [(domain, g, s, metric, CUTOFF) for s, metric in keys])
            for g in SEGMENTS
            if any(key[:2] == (domain, g) for key in self.by_key)
        ]
        return _Table(domain, [*pair, *pair], rows, len(pair))

    def all_measures(self, domain: str) -> _Table:
        keys = {key[3:] for key in self.by_key if key[:2] == (domain, "all")}
        ordered = sorted(keys, key=lambda key: (METRICS.index(key[0]), key[1]))
        rows = [
            self.row(metric.replace("_", " ") + (f"@{k}" if k else ""), [(domain, "all", s, metric, k) for s in self.scorers])
            for metric, k in ordered
        ]
        return _Table(domain, self.scorers, rows)


def _page(report: Report) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"score": lambda value: "—" if value is None else f"{value:.4f}", "short": _short}
    source = (resources.files("metarec_spark") / "evaluation" / "report.html.j2").read_text(encoding="utf-8")
    metrics = _Metrics(report)
    names = dict.fromkeys(name for values in report.parameters.values() for name in values)
    parameters = {name: [report.parameters.get(domain, {}).get(name) for domain in report.domains] for name in names}
    measured = [(epoch.validation_ndcg, -n) for n, epoch in enumerate(report.history, 1) if epoch.validation_ndcg is not None]
    return environment.from_string(source).render(
        report=report,
        cutoff=CUTOFF,
        headline=[metrics.by_scorer(metric) for metric in ("ndcg", "hit_rate")] if report.metrics else [],
        segments=[metrics.by_segment(domain) for domain in report.domains],
        measures=[metrics.all_measures(domain) for domain in report.domains],
        parameters=_Table("by platform", report.domains, [_Row(name, 0, values) for name, values in parameters.items()]),
        best_epoch=max(measured, default=None),
        curves=[chart for chart in _curves(report) if chart.lines],
        histograms=[_histogram(d, report.histograms[d]) for d in report.domains if any(_targets(report, d))],
    )


def _targets(report: Report, domain: str) -> list[int]:
    return report.histograms[domain].targets if domain in report.histograms else []


def _short(value: float | None) -> str:
    return "—" if value is None else f"{value:.4g}"


def _curves(report: Report) -> Iterable[_Chart]:
    """Return loss and validation NDCG by epoch: a line per platform, and a dashed one over all."""
    many = len(report.domains) > 1
    epochs, ndcg = report.history, "Validation NDCG@10"
    for name, total, by_domain in (
        ("Loss", [e.loss for e in epochs], [e.loss_by_domain for e in epochs]),
        (ndcg, [e.validation_ndcg for e in epochs], [e.validation_ndcg_by_domain for e in epochs]),
    ):
        series = [(f"d{n % 8}", list(values)) for n, values in enumerate(zip(*by_domain, strict=True))]
        series += [("total", list(total))] if many else []
        known = [value for _, values in series for value in values if value is not None]
        y = _Scale.round(min(known, default=0.0), max(known, default=1.0), _BOTTOM, _TOP)
        x = _Scale(1.0, max(len(total), 2), _LEFT, _RIGHT)
        lines = [
            (colour, "M" + " L".join(f"{x(n):.1f} {y(value):.1f}" for n, value in enumerate(values, 1) if value is not None))
            for colour, values in series
            if any(value is not None for value in values)
        ]
        ends = [value for value in (total[:1] + total[-1:]) if value is not None]
        text = f": {_short(ends[0])} in the first, {_short(ends[-1])} in the last of {len(total)}" if ends else ""
        yield _Chart(
            f"{name} by epoch",
            f"{name} by epoch{text}",
            lines,
            [(x(n), f"epoch {n}") for n in sorted({1, len(total)})],
            y.ticks(),
        )


def _histogram(domain: str, histogram: Histogram) -> _Chart:
    """Return the distributions of the scores of held-out items (filled) and of top items (outline)."""
    edges = histogram.edges
    x = _Scale(edges[0], edges[-1], _LEFT, _RIGHT)
    y = _Scale.round(0.0, max(*histogram.targets, *histogram.top, 1), _BOTTOM, _TOP)

    def outline(counts: list[int]) -> str:
        steps = (f"V{y(count):.1f} H{x(right):.1f}" for count, right in zip(counts, edges[1:], strict=True))
        return f"M{_LEFT} {_BOTTOM} {' '.join(steps)} V{_BOTTOM}"

    def most(counts: list[int]) -> str:
        highest = counts.index(max(counts))
        return f"most often from {_short(edges[highest])} to {_short(edges[highest + 1])}"

    text = f"Scores in {domain}: held-out items {most(histogram.targets)}, top items {most(histogram.top)}"
    lines = [("filled", outline(histogram.targets)), ("outline", outline(histogram.top))]
    ends = [(x(value), _short(value)) for value in (edges[0], edges[-1])]
    return _Chart(f"Scores in {domain}", text, lines, ends, y.ticks())


@dataclass(frozen=True)
class _Scale:
    """A linear map from values to places."""

    low: float
    high: float
    start: float
    end: float
    step: float = 1.0

    @classmethod
    def round(cls, low: float, high: float, start: float, end: float) -> _Scale:
        """Return a scale whose ends are the next round numbers."""
        span = high - low or abs(high) or 1.0
        unit = 10.0 ** math.floor(math.log10(span))
        step = next(unit * part for part in (0.2, 0.5, 1.0, 2.0) if span / (unit * part) <= 5)
        return cls(math.floor(low / step) * step, math.ceil(high / step) * step, start, end, step)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low or 1.0) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        values = [self.low + n * self.step for n in range(round((self.high - self.low) / self.step) + 1)]
        return [(self(value), f"{value:,.4g}") for value in values]
