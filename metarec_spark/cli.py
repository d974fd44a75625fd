"""The ``metarec`` command; jobs/*.py run the same commands under spark-submit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from metarec_spark import __version__, config, job
from metarec_spark import config as _config
from metarec_spark.config import Config
from metarec_spark.errors import ConfigError, MetarecError
from metarec_spark.job import Details, Job, Result, RowDetails
from metarec_spark.runtime import logs
from metarec_spark.warehouse.storage import file_uri

T = TypeVar("T")
_FIRST_DAY = date(1995, 1, 1)


@dataclass(frozen=True)
class SetupDetails(Details):
    """What setup found or fetched."""

    java: str
    jars: list[str]


app = typer.Typer(name="metarec", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

ConfigFile = Annotated[Path, typer.Option("--config", help="Configuration, a TOML file.", show_default=False)]
Day = Annotated[
    datetime,
    typer.Option("--ds", formats=["%Y-%m-%d"], help="Logical day: nothing newer than its end is read.", show_default=False),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, any number of times.")]


@app.callback()
def all_commands(
    log_format: Annotated[logs.Form, typer.Option(envvar="METAREC_LOG_FORMAT", help="Log lines as text, or as JSON.")] = "text",
) -> None:
    """Options of all commands; they stand before the command."""
    logs.context.form = log_format


@app.command()
def extract(
    config: ConfigFile,
    ds: Day,
    set_: Overrides = None,
    history: Annotated[bool, typer.Option(help="Read the whole log again.")] = False,
) -> None:
    """Sources → events, rejected_events, items, user_sequences, item_transitions, item_content."""
    from metarec_spark.features.extract import extract as work

    _run("extract", config, ds, set_, lambda job: work(job, history=history))


@app.command()
def train(config: ConfigFile, ds: Day, set_: Overrides = None) -> None:
    """Pinned table versions → snapshot → Horovod ranks → a candidate model."""
    from metarec_spark.training.train import train as work

    _run("train", config, ds, set_, work)


@app.command()
def evaluate(config: ConfigFile, ds: Day, set_: Overrides = None) -> None:
    """The newest model + held-out events → metrics; approves or rejects it."""
    from metarec_spark.evaluation.evaluate import evaluate as work

    _run("evaluate", config, ds, set_, work)


@app.command()
def adapt(
    config: ConfigFile,
    ds: Day,
    domain: Annotated[str, typer.Option(help="The new or thin domain.", show_default=False)],
    set_: Overrides = None,
) -> None:
    """The newest approved base model + a domain's few events → the model that serves the domain best."""
    from metarec_spark.transfer.adapt import adapt as work

    _run("adapt", config, ds, set_, lambda job: work(job, domain))


@app.command()
def recommend(config: ConfigFile, ds: Day, set_: Overrides = None) -> None:
    """User sequences + the newest approved model → the day's recommendations."""
    from metarec_spark.scoring.recommend import recommend as work

    _run("recommend", config, ds, set_, work)


@app.command()
def nightly(config: ConfigFile, ds: Day, set_: Overrides = None) -> None:
    """extract → train (when due) → evaluate → recommend."""
    from metarec_spark.nightly import nightly as work

    _run("nightly", config, ds, set_, work)


@app.command()
def feedback(config: ConfigFile, ds: Day, set_: Overrides = None) -> None:
    """Recommendations × later events → feedback, and what to train again."""
    from metarec_spark.operations.feedback import collect as work

    _run("feedback", config, ds, set_, work)


@app.command()
def maintain(config: ConfigFile, ds: Day, set_: Overrides = None) -> None:
    """Compact small files and remove old table versions."""
    from metarec_spark.operations.maintain import maintain as work

    _run("maintain", config, ds, set_, work)


@app.command()
def promote(
    config: ConfigFile,
    ds: Day,
    model: Annotated[str, typer.Option(help="Id of the model; see the table models.", show_default=False)],
    set_: Overrides = None,
) -> None:
    """Make a model serve its platforms from now on, whatever evaluate decided."""
    from metarec_spark.operations.promote import promote as work

    _run("promote", config, ds, set_, lambda job: work(job, model))


@app.command()
def rollback(config: ConfigFile, ds: Day, set_: Overrides = None) -> None:
    """Withdraw the newest model: the models before it serve again."""
    from metarec_spark.operations.promote import rollback as work

    _run("rollback", config, ds, set_, work)


@app.command()
def forget(
    config: ConfigFile,
    user: Annotated[list[str] | None, typer.Option(help="User id as the tables hold it, any number of times.")] = None,
    users: Annotated[Path | None, typer.Option(help="File with one user id a line, or CSV with a column user_id.")] = None,
    missing_ok: Annotated[bool, typer.Option("--missing-ok", help="Forget also those whom no table holds.")] = False,
    items: Annotated[bool, typer.Option("--items", help="Remove also items that have such an id.")] = False,
    ds: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Day of the request; today by default.")] = None,
    set_: Overrides = None,
) -> None:
    """Remove people from every table, and drop their rows from then on."""
    from metarec_spark.operations.forget import forget as work
    from metarec_spark.operations.people import people

    day = ds or datetime.now(UTC)
    named = _checked("forget", day.date(), lambda: people(user or [], users))
    _run("forget", config, day, set_, lambda job: work(job, named, missing_ok=missing_ok, items=items))


@app.command()
def accept(
    config: ConfigFile,
    ds: Day,
    day: Annotated[
        list[datetime] | None, typer.Option(formats=["%Y-%m-%d"], help="Stopped day, any number of times; all by default.")
    ] = None,
    set_: Overrides = None,
) -> None:
    """Accept days that a quality gate stopped: the next run publishes them."""
    from metarec_spark.features.stopped_days import accept as work

    _run("accept", config, ds, set_, lambda job: work(job, [one.date() for one in day or ()]))


@app.command()
def tables(config: ConfigFile, set_: Overrides = None) -> None:
    """Size, version and last writer of every table."""
    from metarec_spark.operations.maintain import tables as work

    _run("tables", config, datetime.now(UTC), set_, work, writes=False)


@app.command()
def generate(
    out: Annotated[Path, typer.Option(help="Folder to write; must not hold a log yet.")],
    users: int = 10_000,
    events: int = 1_000_000,
    items: Annotated[int, typer.Option(help="Items of each platform.")] = 2_000,
    days: int = 30,
    first_day: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"])] = datetime(2024, 1, 1),
    seed: int = 0,
    shared_taste: Annotated[
        float, typer.Option(help="Share of a person's taste that is the same on all platforms, 0 to 1.")
    ] = 1.0,
) -> None:
    """Write a seeded log of five platforms, with late, duplicate and broken rows."""
    from metarec_spark.synthetic.generate import generate as work
    from metarec_spark.synthetic.platforms import Scale

    def write(job: Job) -> Result:
        job.warehouse.check_writable()
        scale = Scale(
            users=users, events=events, items=items, days=days, first_day=first_day.date(), seed=seed, shared_taste=shared_taste
        )
        counts = work(job.spark, scale, file_uri(out))
        return Result(rows_out=sum(counts.values()) - counts["items"], details=RowDetails(counts))

    settings = _checked("generate", None, lambda: config.parse({"warehouse": file_uri(out)}))
    logs.start("generate", None)
    raise typer.Exit(job.run("generate", settings, first_day.date(), write, writes=False))


@app.command()
def inspect(
    paths: Annotated[list[str], typer.Argument(help="Files, folders, globs or Delta tables.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Configuration to write; must not be there yet.")] = Path("metarec.toml"),
    warehouse: Annotated[str | None, typer.Option(help="Root of the tables; by default the folder `warehouse` here.")] = None,
) -> None:
    """Files → what they are, what a night would make of them, and a configuration that runs as it is."""
    from metarec_spark.inspection.inspect import inspect as work

    root = warehouse or file_uri(Path("warehouse").absolute())
    settings = _checked("inspect", None, lambda: config.parse({"warehouse": root}))
    logs.start("inspect", None)
    today = datetime.now(UTC).date()
    named = [path if ":" in path.partition("/")[0] else file_uri(Path(path).absolute()) for path in paths]
    raise typer.Exit(job.run("inspect", settings, today, lambda job: work(job, named, out, warehouse=root), writes=False))


@app.command()
def demo(out: Annotated[Path, typer.Option(help="Folder to write the log and the tables to.")] = Path("warehouse/demo")) -> None:
    """Generate a small log of five platforms, one of them new, and run two nights and an adaptation on it."""
    from metarec_spark.demo import demo as work

    raise typer.Exit(work(out.absolute()))


@app.command()
def setup() -> None:
    """Find Java, fetch Delta's jars and archive Java's classes, once; later runs need no network."""
    from metarec_spark.runtime import class_archive
    from metarec_spark.runtime.cache import cache_folder
    from metarec_spark.runtime.jars import ensure_jars
    from metarec_spark.runtime.java import ensure_java

    java = _checked("setup", None, lambda: ensure_java(cache_folder()))
    jars = _checked("setup", None, lambda: ensure_jars(java))
    logs.start("setup", None)
    if failed := class_archive.ensure_archive(class_archive.archive_path(java, jars), "metarec_spark.demo:archive_classes"):
        logs.log.warning("Java's classes could not be archived; sessions start more slowly without: %s", failed)
    job.report("setup", None, Result(details=SetupDetails(str(java), [str(jar) for jar in jars])), 0.0, {}, {})


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Option("--config", help="Check what this configuration names, too.")] = None,
    set_: Overrides = None,
) -> None:
    """Check Java, jars, Horovod, memory, disks, permissions and versions, and say what to do."""
    from metarec_spark.doctor import doctor as work

    logs.start("doctor", None)
    settings = _checked("doctor", None, lambda: _config.load(config, set_)) if config else None
    result = work(settings)
    job.report("doctor", None, result, 0.0, {}, {})
    raise typer.Exit(result.exit_code)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _run(
    name: str, path: Path, ds: datetime, overrides: list[str] | None, work: Callable[[Job], Result], *, writes: bool = True
) -> None:
    logs.start(name, ds.date())
    settings = _checked(name, ds.date(), lambda: _for_day(config.load(path, overrides), ds.date()))
    raise typer.Exit(job.run(name, settings, ds.date(), work, writes=writes))


def _for_day(settings: Config, ds: date) -> Config:
    """The configuration, if the day is one that a job can run for."""
    today = datetime.now(UTC).date()
    if not _FIRST_DAY <= ds <= today:
        raise ConfigError(f"--ds {ds}: expected a day from {_FIRST_DAY} to today, {today} (UTC)")
    return settings


def _checked(name: str, ds: date | None, work: Callable[[], T]) -> T:
    """Do what comes before a session; its errors are reported as a job's are."""
    try:
        return work()
    except MetarecError as error:
        logs.start(name, ds)
        job.log.error("%s", error)
        job.report(name, ds, Result(exit_code=error.exit_code), 0.0, {}, {}, error=str(error))
        raise typer.Exit(error.exit_code) from None


def main(arguments: list[str] | None = None) -> None:
    """Run a command; the exit code is 0 done, 2 usage or configuration, 3 data, 4 model rejected, 5 waited too long for another
    run, 128 + n ended by signal n, 1 anything else."""
    app(args=sys.argv[1:] if arguments is None else arguments)
