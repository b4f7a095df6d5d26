"""Cold starts: the whole process of `pipeline --help`, and of question 1 on the archive; and the program's size."""
from .measure import run
from .rounds import PIPELINE, Goal, Report, Row
from .site import ROOT

TIMES = 20


def milliseconds(command):
    return [run(command, is_silent=True).seconds * 1e3 for _ in range(TIMES)]


def measure(site):
    sql = (ROOT / "sql/queries/1_host_window.sql").read_text()
    asked = [site.pipeline, "query", "--from", site.archive, "--output", "csv", "--", sql]
    told = milliseconds([site.pipeline, "--help"])
    return Report([
        Row("start to end of `pipeline --help`", PIPELINE, "ms", told, goals=[Goal(20)]),
        Row("start to end of `pipeline query`, question 1", PIPELINE, "ms", milliseconds(asked), lines=site.lines),
        Row("release program", PIPELINE, "MB", [site.pipeline.stat().st_size / 1e6]),
    ])
