"""Peak memory of `pipeline run`, into an archive and through Redis into Postgres, against the same with fewer lines."""
import shutil

from . import loading
from .measure import Sample, run
from .rounds import PIPELINE, Goal, Report, play, rows
from .site import FEWER

FEWER_LINES = f"the same of a {FEWER}th of the lines"
MIB = 1 << 20
GOALS = {PIPELINE: [Goal(300)], FEWER_LINES: [Goal(1.1)]}


def into_archive(site, logs, lines):
    folder = site.new_folder()
    ended = run([site.pipeline, "run", logs, "--into", folder, "--quiet"])
    shutil.rmtree(folder)
    return Sample(ended.peak_bytes / MIB, lines, ended.cpu_seconds)


def into_postgres(site, logs, lines):
    loading.clear(site, loading.SCHEMA)
    sample = loading.load(site, loading.SCHEMA, logs, lines)
    return Sample(sample.peak_bytes / MIB, lines, sample.cpu_seconds)


def measure(site):
    report = Report()
    inputs = {PIPELINE: (site.logs, site.lines), FEWER_LINES: (site.fewer_logs, site.lines // FEWER)}
    for name, load in (("into an archive", into_archive), ("through Redis into Postgres", into_postgres)):
        played = play({who: lambda given=given: load(site, *given) for who, given in inputs.items()}, site.rounds)
        report.rows += rows(f"peak memory, {name}", played, unit="MiB", floors=[FEWER_LINES], goals=GOALS)
    loading.clear(site, loading.SCHEMA)
    return report
