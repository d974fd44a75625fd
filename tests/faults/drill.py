"""The fault drill: every job is killed at its steps and at random moments, and run again; then its tables are compared.

PYTHONPATH=tests .venv/bin/python -m faults.drill [--kills 100] [--seed 0] [--out warehouse/drill] [--jobs extract,nightly]

First every job runs undisturbed, once: what the warehouse then holds is kept in ``--out`` (and used again by a later call), and
so are the steps that were seen and when. Then, round by round, a job starts from what was there before it and is killed with
kill -9: its whole process group, or the driver alone. What a killed run left and no commit names is overwritten with rubbish,
so that whoever reads it fails; models that the table ``models`` names must be whole. The next run of the round goes on from
there and is killed in turn, ``CHAIN`` times at most; the last one is left alone, and its tables must be those of the undisturbed
run, row by row. A line a kill is printed, and written to ``kills.jsonl``. Exit code 1: something differed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from faults.company import SAME, WORKS, Company, Work
from faults.contents import contents, differences, leftovers, models, spoil
from faults.runs import Point
from rich.console import Console
from rich.table import Table

CHAIN = 3
"""Kills, at most, before a run is left alone."""
_AT_STEPS = 0.6
_ALONE = 0.25
_COLUMNS = ("kill", "job", "who", "point", "second", "last commit", "left", "after the run that was left alone")


@dataclass
class Kill:
    """One kill, as the table shows it."""

    job: str
    who: str
    point: str
    second: float
    last_commit: str
    left: int
    """Files that nothing names."""
    problems: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("warehouse/drill"))
    parser.add_argument("--jobs", default="", help="names, by commas; all by default")
    options = parser.parse_args()
    console, start = Console(width=200), time.monotonic()
    company = Company(options.out)
    for work in WORKS:
        undisturbed(company, work)
    works = [work for work in WORKS if not options.jobs or work.command[0] in options.jobs.split(",")]
    chance, kills, rounds = random.Random(options.seed), [], 0
    while len(kills) < options.kills:
        made = a_round(company, works[rounds % len(works)], chance, min(CHAIN, options.kills - len(kills)))
        rounds += 1
        for kill in made:
            kills.append(kill)
            console.print(" · ".join(row_of(len(kills), kill)), soft_wrap=True)
            with (options.out / "kills.jsonl").open("a") as file:
                file.write(json.dumps({"seed": options.seed, **vars(kill)}) + "\n")
    wrong = [kill for kill in kills if kill.problems]
    table = Table(*_COLUMNS)
    for number, kill in enumerate(kills, 1):
        table.add_row(*row_of(number, kill))
    console.print(table)
    alone = sum(kill.who == "driver" for kill in kills)
    said = f"{len(kills)} kills ({alone} of the driver alone) in {rounds} rounds, {time.monotonic() - start:.0f} s"
    console.print(f"{said}; {len(wrong)} of them in rounds in which something differed")
    sys.exit(1 if wrong else 0)


def row_of(number: int, kill: Kill) -> list[str]:
    after = "; ".join(kill.problems) or "the same"
    return [str(number), kill.job, kill.who, kill.point, f"{kill.second:.1f}", kill.last_commit or "none", str(kill.left), after]


def undisturbed(company: Company, work: Work) -> None:
    """Run a job on what was there before it, and keep what it ends in, unless that was done."""
    seen = _steps_file(company, work)
    if seen.exists():
        return
    company.put_back(work.before)
    run = company.start(work)
    steps = run.timed_steps()
    code, _, log = run.end()
    if code:
        sys.exit(f"{work}, undisturbed, ended with {code}:\n{log[-3000:]}")
    company.keep(work.after)
    if work.after in SAME and (said := differences(contents_of(company, SAME[work.after]), contents_of(company, work.after))):
        sys.exit(f"{work} ends in something else than its parts: {said}")
    seen.parent.mkdir(parents=True, exist_ok=True)
    seen.write_text(json.dumps({"seconds": run.seconds, "steps": steps}))
    print(f"{work}: {run.seconds:.1f} s, {len(steps)} steps", flush=True)


def contents_of(company: Company, state: str) -> dict[str, list[str]]:
    """Contents of a kept state; paths of its models lead to the warehouse, so they are those that the warehouse has."""
    file = company.folder / "states" / f"{state}.json"
    if not file.exists():
        company.put_back(state)
        file.write_text(json.dumps(contents(company.tables)))
    return json.loads(file.read_text())


def _steps_file(company: Company, work: Work) -> Path:
    return company.folder / "undisturbed" / f"{'-'.join(work.command)}-{work.ds}.json"


def points(company: Company, work: Work, chance: random.Random, count: int) -> list[Point]:
    """When to kill: at steps of the undisturbed run or soon after one, and at random seconds, the earlier first."""
    seen = json.loads(_steps_file(company, work).read_text())
    first = min((second for _, second in seen["steps"]), default=0.0)
    chosen: list[tuple[float, Point]] = []
    for _ in range(count):
        if seen["steps"] and chance.random() < _AT_STEPS:
            step, second = chance.choice(seen["steps"])
            chosen.append((second, Point(step, chance.choice([0.0, 0.0, chance.uniform(0.0, 0.5)]))))
        else:
            second = chance.uniform(0.7 * first, seen["seconds"])
            chosen.append((second, Point(None, second)))
    return [point for _, point in sorted(chosen, key=lambda pair: pair[0])]


def a_round(company: Company, work: Work, chance: random.Random, count: int) -> list[Kill]:
    """Kill a job a few times in a row, and then leave it alone."""
    expected = contents_of(company, work.after)
    company.put_back(work.before)
    made: list[Kill] = []
    failed: list[str] = []
    for point in points(company, work, chance, count):
        run = company.start(work)
        if not run.until(point):  # it had less to do than the undisturbed run, and has ended
            code, line, _ = run.end()
            failed += [f"exit code {code}: {line.get('error')}"] if code else []
            continue
        second, alone = run.seconds, chance.random() < _ALONE
        remaining = run.kill(alone=alone)
        left = leftovers(company.tables)
        who = "driver" if alone else "group"
        made.append(Kill(str(work), who, str(point), round(second, 1), run.steps.last_commit, len(left)))
        if remaining:
            made[-1].problems.append(f"processes {remaining} went on")
        try:
            models(company.tables)
        except Exception as error:
            made[-1].problems.append(f"a model that is not whole: {error}")
        spoil(left)
    code, line, _ = company.start(work).end()
    failed += [f"exit code {code}: {line.get('error')}"] if code else differences(expected, contents(company.tables))
    for kill in made:
        kill.problems += failed
    return made


if __name__ == "__main__":
    main()
