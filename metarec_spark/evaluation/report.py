"""A person's view of one evaluated model: a single HTML file beside it, without scripts or anything from elsewhere.

Drawings are SVG in the page. Their colours are CSS variables of the template, so that one drawing serves light and dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources

import matplotlib
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarec_spark import columns as c
from metarec_spark.evaluation.metrics import AT_K, SEGMENTS
from metarec_spark.model.manifest import DomainSettings, Epoch
from metarec_spark.warehouse.storage import Location, atomic_write, local_path, read_bytes

CUTOFF = 10
"""Length of the lists that the page judges."""

_METRICS = (*AT_K, "coverage", "auc", "accuracy", "loss")
_NONE = "—"
_SERIES = 8  # colours of domains that the template has
_MARKERS = "os^DvPXp"
_SIGNS = "●■▲◆▼✚✖⬟"  # the same shapes, for the legend
_WIDE, _NARROW = 400, 330  # widths of drawings, near the pixels that they get, so that font sizes are what they say

# Colours that stand for CSS variables until the SVG is written. None is black, which matplotlib leaves out.
_INK, _QUIET, _RULE, _MODEL, _OTHER, _BEST = (f"#0{n}0000" for n in range(1, 7))
_VARIABLES = dict(
    zip((_INK, _QUIET, _RULE, _MODEL, _OTHER, _BEST), ("ink", "quiet", "rule", "model", "other", "best"), strict=True)
)
_DOMAINS = [f"#0{n}0007" for n in range(_SERIES)]
_VARIABLES |= {colour: f"domain-{n}" for n, colour in enumerate(_DOMAINS)}

_STYLE = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "text.color": _INK,
    "font.size": 11,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _QUIET,
    "axes.labelsize": 10,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
}

_EXAMPLE = re.compile(r'<article class="card example">.*?</article>', re.DOTALL)
_HEADING = "<h3>User <bdi>{}</bdi></h3>"

Values = dict[tuple[str, str, str, str, int], dict]
"""(domain, segment, scorer, metric, k) → the row of ``metrics``, of the test split."""


@dataclass(frozen=True)
class Report:
    """What is known of an evaluated model."""

    model_id: str
    ds: str
    """Logical day, YYYY-MM-DD."""
    status: str
    """approved or rejected."""
    reason: str
    facts: dict[str, str]
    """Name → what is said of the model and its training: sequences, items, epochs, code version."""
    history: list[Epoch]
    """Per epoch: loss and validation_ndcg@10, both also by domain with _of at the end, and seconds; None is unmeasured."""
    domains: list[str]
    metrics: list[dict]
    """Rows {split, domain, segment, scorer, metric, k, value, users}; empty where nothing was held out."""
    settings: dict[str, DomainSettings]
    """Domain → settings of g and h."""
    histogram: dict[str, dict]
    """Domain → {"edges": n + 1 scores, "targets": n counts, "best": n counts}: of held-out items, and of top items."""
    examples: list[dict]
    """{"domain", "user_id", "history": newest last, "target", "rank": from 1, "items": [[name, score, is_target], …]}."""


def write(folder: Location, report: Report) -> Location:
    """Write ``report.html`` whole, and return its place; the same report gives the same bytes.

    Parameters
    ----------
    folder
        The model's folder.
    report
        What to show. Its texts may hold anything: they are escaped.
    """
    place = f"{folder}/report.html"
    with atomic_write(place) as draft:
        draft.write_text(_page(report), encoding="utf-8")
    return local_path(place) or place


def forget(place: Location, users: Iterable[str]) -> bool:
    """Take the examples of these users out of a written page; whether there were any."""
    page = read_bytes(place).decode()  # as it is: reading as text would change the line ends of ids
    headings = [_HEADING.format(escape(user)) for user in users]
    left = _EXAMPLE.sub(lambda example: "" if any(heading in example[0] for heading in headings) else example[0], page)
    if left == page:
        return False
    with atomic_write(place) as draft:
        draft.write_bytes(left.encode())
    return True


def _page(report: Report) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"score": _score, "short": _short}
    source = (resources.files("metarec_spark") / "evaluation" / "report.html.j2").read_text(encoding="utf-8")
    values: Values = {
        (row["domain"], row["segment"], row["scorer"], row["metric"], row["k"]): row
        for row in report.metrics
        if row["split"] == c.TEST and row["domain"] in report.domains
    }
    scorers = [scorer for scorer in c.SCORERS if any(key[2] == scorer for key in values)]
    ndcg = _by_scorer(values, report.domains, scorers, "ndcg")
    headline = [("NDCG", ndcg), ("HR", _by_scorer(values, report.domains, scorers, "hit_rate"))] if values else []
    drawn = [d for d in report.domains if any(report.histogram.get(d, {}).get("targets", []))]
    return environment.from_string(source).render(
        report=report,
        cutoff=CUTOFF,
        scorers=scorers,
        form=_score,
        pairs=ndcg[-1]["users"] if ndcg else 0,
        headline=headline,
        tiles=[(name, *_of_all(rows, scorers)) for name, rows in headline],
        segments=_by_segment(values, report.domains),
        measures={domain: _all_measures(values, domain, scorers) for domain in report.domains},
        parameters=_parameters(report),
        best_epoch=_best_epoch(report.history),
        legend=[(_SIGNS[n % _SERIES], n % _SERIES, domain) for n, domain in enumerate(report.domains)],
        curves=_all_curves(report),
        bars=[_bars(n, row, scorers, _largest(ndcg)) for n, row in enumerate(ndcg) if row["users"] and not row["total"]],
        histograms=[(domain, _histogram(n, domain, report.histogram[domain])) for n, domain in enumerate(drawn)],
    )


def _score(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4f}"


def _short(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4g}"


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _line(name: str, cells: list[float | None], users: int, total: bool = False) -> dict:
    """A table's row; the best cells are marked where another is worse."""
    best = max(_known(cells)) if len(set(_known(cells))) > 1 else None
    return {"name": name, "users": users, "total": total, "cells": [(cell, cell is not None and cell == best) for cell in cells]}


def _by_scorer(values: Values, domains: list[str], scorers: list[str], metric: str) -> list[dict]:
    """A row for each domain, and one for the mean over all pairs where there are several domains."""
    rows = []
    for domain in domains:
        found = [values.get((domain, "all", scorer, metric, CUTOFF)) for scorer in scorers]
        rows.append(
            _line(domain, [row and row["value"] for row in found], max((row["users"] for row in found if row), default=0))
        )
    measured = [row for row in rows if row["users"]]
    if len(measured) > 1:
        users = [row["users"] for row in measured]
        columns = zip(*([cell for cell, _ in row["cells"]] for row in measured), strict=True)
        rows.append(_line("all domains", [_mean(column, users) for column in columns], sum(users), total=True))
    return rows


def _of_all(rows: list[dict], scorers: list[str]) -> tuple[float | None, float | None]:
    """Model and popularity over all domains: the last row's."""
    of = dict(zip(scorers, (cell for cell, _ in rows[-1]["cells"]), strict=True))
    return of.get(c.MODEL), of.get(c.POPULARITY)


def _mean(values: tuple[float | None, ...], users: list[int]) -> float | None:
    if None in values:
        return None
    return sum(value * n for value, n in zip(values, users, strict=True)) / sum(users)


def _largest(rows: list[dict]) -> float:
    return max((cell for row in rows for cell, _ in row["cells"] if cell is not None), default=0.0)


def _by_segment(values: Values, domains: list[str]) -> list[tuple[str, list[dict]]]:
    """Domain → a row for each segment: NDCG of model and popularity, then HR of both."""
    tables = []
    for domain in domains if values else []:
        rows = []
        for segment in SEGMENTS:
            halves = []
            for metric in ("ndcg", "hit_rate"):
                found = [values.get((domain, segment, scorer, metric, CUTOFF)) for scorer in (c.MODEL, c.POPULARITY)]
                users = max((row["users"] for row in found if row), default=0)
                halves.append(_line(segment.replace("_", " "), [row and row["value"] for row in found], users))
            rows.append({**halves[0], "cells": [*halves[0]["cells"], *halves[1]["cells"]]})
        tables.append((domain, rows))
    return tables


def _all_measures(values: Values, domain: str, scorers: list[str]) -> list[dict]:
    """A row for each metric and cutoff of all the domain's users."""
    keys = {(metric, k) for d, segment, _, metric, k in values if (d, segment) == (domain, "all")}
    order = {name: place for place, name in enumerate(_METRICS)}
    rows = []
    for metric, k in sorted(keys, key=lambda key: (order.get(key[0], len(order)), key)):
        found = [values.get((domain, "all", scorer, metric, k)) for scorer in scorers]
        rows.append(
            {"name": f"{metric.replace('_', ' ')}{f'@{k}' if k else ''}", "cells": [row and row["value"] for row in found]}
        )
    return rows


def _parameters(report: Report) -> list[tuple[str, list[dict]]]:
    """Of h, then of g: a row for each parameter, with a cell for each domain."""
    groups = []
    settings = [report.settings.get(domain) for domain in report.domains]
    titles = (("fusion", "h, the fusion"), ("params", "g, the item-to-item transitions"))
    for key, title in titles:
        values = [getattr(found, key).model_dump() if found else {} for found in settings]
        names = dict.fromkeys(name for part in values for name in part)
        groups.append((title, [{"name": name.replace("_", " "), "cells": [part.get(name) for part in values]} for name in names]))
    if any(stacked := [float(found.stacked) if found else 0.0 for found in settings]):
        groups[0][1].append({"name": "stacked by a network, 1 = yes", "cells": stacked})
    return [(title, rows) for title, rows in groups if rows]


def _best_epoch(history: list[Epoch]) -> tuple[int, float] | None:
    """Number, from 1, and NDCG of the epoch that did best in validation."""
    measured = [(epoch.validation_ndcg, -n) for n, epoch in enumerate(history, 1) if epoch.validation_ndcg is not None]
    return (-max(measured)[1], max(measured)[0]) if measured else None


def _all_curves(report: Report) -> list[tuple[str, Markup]]:
    kinds = (("loss", "Loss"), ("validation_ndcg", "Validation NDCG@10"))
    curves = []
    for key, title in kinds:
        total = [getattr(epoch, key) for epoch in report.history]
        of_domain = [[getattr(epoch, f"{key}_by_domain")[n] for epoch in report.history] for n in range(len(report.domains))]
        if any(_known(values) for values in (total, *of_domain)):
            curves.append((f"{title} by epoch", _curves(key.partition("_")[0], title, total, of_domain)))
    return curves


def _curves(name: str, title: str, total: list[float | None], of_domain: list[list[float | None]]) -> Markup:
    def line(axes: Axes, values: list[float | None], **style: object) -> None:
        points = [(n, value) for n, value in enumerate(values, 1) if value is not None]
        axes.plot(*zip(*points, strict=True) if points else ([], []), markevery=max(1, len(points) // 8), **style)

    def draw(axes: Axes) -> None:
        for n, values in enumerate(of_domain):
            line(axes, values, color=_DOMAINS[n % _SERIES], marker=_MARKERS[n % _SERIES])
        if len(of_domain) > 1:
            line(axes, total, color=_INK, linestyle=(0, (4, 2)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=8))
        axes.set_xlabel("epoch")
        axes.grid(axis="y")

    known = _known(total)
    said = f": {_short(known[0])} in the first, {_short(known[-1])} in the last of {len(total)}" if known else ""
    return _drawing(name, f"{title} by epoch{said}", (_WIDE, 220), draw)


def _bars(place: int, row: dict, scorers: list[str], largest: float) -> tuple[str, Markup]:
    found = [(scorer, value) for scorer, (value, _) in zip(scorers, row["cells"], strict=True) if value is not None]

    def draw(axes: Axes) -> None:
        names, values = [scorer for scorer, _ in found], [value for _, value in found]
        drawn = axes.barh(names, values, height=0.62, color=[_MODEL if name == c.MODEL else _OTHER for name in names])
        axes.bar_label(drawn, [_score(value) for value in values], padding=5, fontsize=10)
        axes.set_xlim(0, largest * 1.22 or 1)  # one scale for all domains, and room for the numbers
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelcolor=_INK)
        axes.xaxis.set_visible(False)
        axes.spines.bottom.set_visible(False)

    said = ", ".join(f"{scorer} {_score(value)}" for scorer, value in found)
    return row["name"], _drawing(f"ndcg-{place}", f"NDCG@{CUTOFF} in {row['name']}: {said}", (_NARROW, 140), draw)


def _histogram(place: int, domain: str, of: dict) -> Markup:
    def draw(axes: Axes) -> None:
        axes.stairs(of["targets"], of["edges"], fill=True, color=_MODEL, alpha=0.55)
        axes.stairs(of["best"], of["edges"], color=_BEST, linewidth=1.8)
        axes.set_xlabel("score h")
        axes.set_ylabel("users")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        axes.grid(axis="y")

    def said(counts: list[int]) -> str:
        low = counts.index(max(counts))
        return f"most often from {_short(of['edges'][low])} to {_short(of['edges'][low + 1])}"

    title = f"Scores in {domain}: held-out items {said(of['targets'])}, top items {said(of['best'])}"
    return _drawing(f"scores-{place}", title, (_NARROW, 180), draw)


def _drawing(name: str, title: str, size: tuple[int, int], draw: Callable[[Axes], None]) -> Markup:
    """An SVG element with its title, whose ids no other drawing of the page has."""
    text = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        draw(figure.subplots())
        figure.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = text.getvalue().replace("xlink:href", "href")
    svg = svg[svg.index(">", svg.index("<svg")) + 1 :]
    # Matplotlib's own ids and fonts, and a style sheet that would hold for the whole page.
    svg = re.sub(r' id="[\w.]+?_\d+"| ?font-family: [^;"]+;?|<defs>\s*<style.*?</style>\s*</defs>', "", svg, flags=re.DOTALL)
    svg = re.sub("#0[0-9]000[0-9]", lambda found: f"var(--{_VARIABLES[found[0]]})", svg)
    opening = f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-labelledby="{name}">'
    return Markup(f'{opening}<title id="{name}">{escape(title)}</title>{svg}')
