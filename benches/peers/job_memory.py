"""Peak memory of `pipeline run` with ten times the lines, into an archive and through Redis into Postgres. One round."""
import shutil

from . import loading
from .measure import Sample, run
from .rounds import PIPELINE, Goal, Report, play, rows
from .site import MORE

STANDARD_LINES = f"the same of a {MORE}th of these lines"
MIB = 1 << 20
GOALS = {PIPELINE: [Goal(300)], STANDARD_LINES: [Goal(1.1)]}


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
    inputs = {PIPELINE: (site.more_logs, site.lines * MORE), STANDARD_LINES: (site.logs, site.lines)}
    for name, load in (("into an archive", into_archive), ("through Redis into Postgres", into_postgres)):
        played = play({who: lambda given=given: load(site, *given) for who, given in inputs.items()}, 1)
        report.rows += rows(f"peak memory, {name}", played, unit="MiB", floors=[STANDARD_LINES], goals=GOALS)
    loading.clear(site, loading.SCHEMA)
    return report
