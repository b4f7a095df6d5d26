"""The six questions on the archive, warm, against DuckDB on its own Parquet of the same rows.

In each round a session of pipeline and one of DuckDB answer all questions once to warm up and then three times more,
as CSV to nowhere; a round's figure of a question is the median of the three.
"""
import json
import math
import shutil
from statistics import median

from .measure import Failed, Sample, peer, run
from .rounds import PIPELINE, Goal, Report, Table, play, rows
from .site import ROOT

DUCKDB = "DuckDB on its own Parquet"
TIMED = 3


def of_file(folder):
    """Statements by name."""
    return {file.stem: file.read_text().rstrip().rstrip(";") for file in sorted(folder.glob("*.sql"))}


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


class Contenders:
    """A sample's value is the geometric mean of all questions, whose milliseconds are beside it."""

    def __init__(self, site, statements):
        self.site, self.statements = site, statements
        self.folder = site.new_folder()

    def sample(self, milliseconds, ended):
        others = {name: median(values) for name, values in milliseconds.items()}
        return Sample(geometric_mean(others.values()), self.site.lines, ended.cpu_seconds, ended.peak_bytes, others)

    def ask(self, times, **options):
        """A session of pipeline."""
        file = self.folder / "questions.sql"
        file.write_text(";\n".join(list(self.statements.values()) * times))
        command = [self.site.pipeline, "query", "--from", self.site.archive, "--output", "csv", "--timing", "-f", file]
        return run(command, **options)

    def pipeline(self):
        ended, count = self.ask(TIMED + 1, is_silent=True), len(self.statements)
        taken = [float(line.split()[1]) for line in ended.errors.splitlines() if line.startswith("time: ")]
        return self.sample({name: taken[count + index::count] for index, name in enumerate(self.statements)}, ended)

    def duckdb(self):
        file = self.folder / "questions.json"
        file.write_text(json.dumps(self.statements))
        ended = peer("duckdb_peer", "questions", self.site.duckdb_parquet, file, TIMED)
        answered = json.loads(ended.output)
        self.check(answered["rows"])
        return self.sample(answered["milliseconds"], ended)

    def check(self, counts):
        """Both answer alike, by the number of rows; pipeline writes a line of names above each answer."""
        expected, found = sum(counts.values()) + len(counts), self.ask(1).output.count("\n")
        if found != expected:
            raise Failed(f"it answers with {expected} lines, pipeline with {found}")


def measure(site):
    statements = of_file(ROOT / "sql/queries")
    contenders = Contenders(site, statements)
    played = play({PIPELINE: contenders.pipeline, DUCKDB: contenders.duckdb}, site.rounds)
    shutil.rmtree(contenders.folder)
    job = "six questions, warm"
    made = rows(f"{job}, geometric mean", played, unit="ms", floors=[DUCKDB], goals={DUCKDB: [Goal(1.0)]})
    by_question = {
        name: rows(f"{job}, the worst: {name}", played, unit="ms", floors=[DUCKDB], goals={DUCKDB: [Goal(1.5)]},
                   value=lambda sample, name=name: sample.others[name]) for name in statements
    }
    ratios = {name: other.judged() for name, (_, other) in by_question.items() if other.ratios}
    if not ratios:
        return Report(made)
    detail = [[name, *(median(row.values) for row in by_question[name]), ratio] for name, ratio in ratios.items()]
    columns = ["question", "pipeline, ms", "DuckDB, ms", "pipeline's time in DuckDB's"]
    return Report(made + by_question[max(ratios, key=ratios.get)], [Table("Questions on the archive", columns, detail)])
