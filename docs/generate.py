"""Write the generated parts of docs/: ``python docs/generate.py`` (a test compares them with what this would write).

configuration.md from the keys' docstrings, the reference in tables.md from schemas/, and layers.svg from the import table in
tests/test_architecture.py.
"""

from __future__ import annotations

import ast
import json
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from metarec_spark.columns import WRITTEN_BY
from metarec_spark.config.document import document

DOCS = Path(__file__).parent
ROOT = DOCS.parent
MARKER = "<!-- Generated from schemas/ by docs/generate.py; do not edit below this line. -->\n"
ROOMS = {
    "cli": (2, "the metarec command"),
    "demo": (2, "a generated log, two nights"),
    "doctor": (0, "checks the machine"),
    "nightly": (1, "the order of a night's steps"),
    "operations": (1, "feedback, maintain, forget"),
    "evaluation": (1, "ranks held-out events"),
    "transfer": (2.8, "adapts to a new platform"),
    "scoring": (1, "rules, exact top-N, lists"),
    "training": (2, "snapshot, ranks, loop"),
    "features": (1, "logs to feature tables"),
    "registry": (2, "rows of the table models"),
    "sources": (3, "files of logs, read as they are"),
    "job": (1, "lock, result, exit code"),
    "model": (2, "encoder, transitions, ensemble"),
    "runtime": (1, "Java, Spark session, logs"),
    "config": (0, "the TOML file, checked"),
    "warehouse": (2, "Delta tables, files, lock"),
    "synthetic": (4, "generated logs"),
    "columns": (1, "names, each spelled once"),
    "errors": (2, "typed errors, exit codes"),
}
"""Room → its column on the picture of the layers, and what it is for."""
ELSEWHERE = (3.8, "")
"""Of a room that ROOMS does not name yet."""
WIDTH, HEIGHT, ACROSS, DOWN, MARGIN = 196, 50, 214, 88, 16
STYLE = """
    .room { fill: #dbeafe; stroke: #2563eb; stroke-width: 1.5 }
    .name { font-weight: bold; fill: #0f172a }
    .note { font-size: 12px; fill: #475569 }
    .arrow { fill: none; stroke: #94a3b8; stroke-width: 1.6; marker-end: url(#tip) }"""


def generated() -> dict[Path, str]:
    """Return each generated file's path and text."""
    tables = DOCS / "tables.md"
    written = tables.read_text(encoding="utf-8").partition(MARKER)[0] + MARKER + tables_reference()
    return {DOCS / "configuration.md": document(), tables: written, DOCS / "layers.svg": layers()}


_WRITERS = {
    "runs": "every command that writes",
    "models": "`metarec train` and `metarec adapt`, its status also by `metarec evaluate`, `promote` and `rollback`",
}


def tables_reference() -> str:
    """Return one section per table: what it holds, who writes it, its key and its columns."""
    parts = []
    for name, command in WRITTEN_BY.items():
        contract = json.loads((ROOT / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
        about = [f"written by {_WRITERS.get(name, f'`metarec {command}`')}"]
        about += [f"key: {_list(contract['key'])}"] if contract["key"] else []
        about += [f"partitioned by {_list(contract['partition_by'])}"] if contract["partition_by"] else []
        parts.append(f"\n### {name}\n\n{contract['description']} {'; '.join(about).capitalize()}.\n")
        parts.append("| column | type | null | meaning |\n|---|---|---|---|")
        parts += _rows(contract["fields"])
        checks = [f"`{condition}`" for condition in contract.get("checks", {}).values()]
        parts += [f"\nDelta checks on every write: {', '.join(checks)}."] if checks else []
    return "\n".join(parts) + "\n"


def _rows(fields: list[dict[str, Any]], prefix: str = "") -> list[str]:
    rows = []
    for field in fields:
        nullable = "" if prefix else "yes" if field["nullable"] else "no"
        rows.append(f"| `{prefix}{field['name']}` | {_type(field['type'])} | {nullable} | {field['metadata']['comment']} |")
        element = field["type"].get("elementType") if isinstance(field["type"], dict) else None
        if isinstance(element, dict) and element["type"] == "struct":
            rows += _rows(element["fields"], f"{field['name']}.")
    return rows


def _type(kind: str | dict[str, Any]) -> str:
    if isinstance(kind, str):
        return kind
    if kind["type"] == "array":
        return f"array of {_type(kind['elementType'])}"
    return f"map of {kind['keyType']} to {kind['valueType']}" if kind["type"] == "map" else "struct"


def _list(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def import_table() -> dict[str, set[str]]:
    """Return room → rooms that it may import, as tests/test_architecture.py has it."""
    tree = ast.parse((ROOT / "tests" / "test_architecture.py").read_text(encoding="utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "MAY_IMPORT"]
    return {room: set(allowed.split()) for room, allowed in ast.literal_eval(ast.unparse(assigned[0].value)).items()}


def layers() -> str:
    """Return the rooms as a picture: each above all that it may import. An arrow that follows from two others is left out."""
    table = import_table()

    @cache
    def level(room: str) -> int:
        return 1 + max((level(other) for other in table[room]), default=-1)

    @cache
    def below(room: str) -> frozenset[str]:
        return frozenset(table[room]).union(*(below(other) for other in table[room]))

    top = max(map(level, table))
    place = {
        room: (MARGIN + round(ACROSS * ROOMS.get(room, ELSEWHERE)[0]), MARGIN + DOWN * (top - level(room))) for room in table
    }
    width, height = (MARGIN + WIDTH + max(x for x, _ in place.values()), MARGIN + HEIGHT + max(y for _, y in place.values()))
    shapes = []
    for room in table:
        for other in sorted(table[room]):
            if not any(other in below(between) for between in table[room]):
                (x, y), (to_x, to_y) = place[room], place[other]
                start, end = x + WIDTH // 2 + (to_x - x) // 12, to_x + WIDTH // 2 - (to_x - x) // 12
                bend = f"C{start} {y + HEIGHT + 30} {end} {y + HEIGHT + 10} {end} {to_y - 4}"
                shapes.append(f'  <path class="arrow" d="M{start} {y + HEIGHT} {bend}"/>')
    for room, (x, y) in place.items():
        shapes.append(f'  <rect class="room" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>')
        shapes.append(f'  <text class="name" x="{x + WIDTH // 2}" y="{y + 22}" text-anchor="middle">{room}</text>')
        note = escape(ROOMS.get(room, ELSEWHERE)[1])
        shapes.append(f'  <text class="note" x="{x + WIDTH // 2}" y="{y + 41}" text-anchor="middle">{note}</text>')
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="Helvetica, Arial, sans-serif" font-size="15" role="img">'
    tip = '<marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    tip = f'  <defs>{tip}<path d="M0 0 L10 5 L0 10 z" fill="#94a3b8"/></marker></defs>'
    title = "  <title>Rooms of the package; each may import what lies below it along the arrows</title>"
    background = f'  <rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, title, tip, f"  <style>{STYLE}\n  </style>", background, *shapes, "</svg>"]) + "\n"


def main() -> None:
    """Write the files."""
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
