"""The one table, and the details beside it, as Markdown and as JSON."""
import json
from statistics import median

HEAD = ("job", "contender", "unit", "median", "min", "max", "against pipeline", "goal", "met", "CPU, s", "peak, MiB")
NOTES = """\
A ratio is taken in each round, of runs that follow each other, and its median is shown. *N x pipeline's*: the
contender's figure is N times that of pipeline. *pipeline N x this*: of a floor, which does less than the job asks for,
or of what the goal is set against, the other way round. CPU is the median of all processes of a run, clients and
servers; peak memory is the median of the clients alone, added up where there are several (of one, less than 19 MiB
cannot be told). Pipeline's time is that of its whole process, or until its ledger has all lines, the making of its
schema included; that of a peer in Python begins after its imports. The peers parse the generated formats only, and keep
neither rejects nor line numbers nor a ledger. Pipeline goes through Redis into Postgres; ClickHouse and Fluent Bit go
there straight. Postgres and Redis have the settings of `scripts/services`.
"""


def short(value):
    """Whole numbers as they are, others with three digits."""
    if value is None:
        return "-"
    if not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def cells(row):
    against = short(row.judged()) if row.ratios else None
    if against:
        against = f"pipeline {against} x this" if row.is_floor else f"{against} x pipeline's"
    met = {None: "-", True: "yes", False: "**no**"}[row.is_met()]
    goal = ", ".join(goal.text() for goal in row.goals) or "-"
    if row.problem and not row.values:
        return [row.job, row.contender, row.problem, *"---", "-", goal, "-", "-", "-"]
    spread = [short(figure(row.values)) for figure in (median, min, max)]
    peak = median(row.peak_bytes) / 2**20 if row.peak_bytes else None
    cpu = median(row.cpu_seconds) if row.cpu_seconds else None
    contender = row.contender + (f" (then failed: {row.problem})" if row.problem else "")
    return [row.job, contender, row.unit, *spread, against or "-", goal, met, short(cpu), short(peak)]


def grid(head, lines):
    escaped = ([str(cell).replace("|", "\\|") for cell in line] for line in (head, *lines))
    head, *lines = (f"| {' | '.join(line)} |" for line in escaped)
    return "\n".join([head, "|" + "---|" * head.replace("\\|", "").count("|", 1), *lines])


def markdown(recorded, report):
    environment = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in recorded.items())
    title = f"# pipeline beside its peers, {recorded['date']}"
    parts = [title, environment, grid(HEAD, map(cells, report.rows)), NOTES]
    for table in report.tables:
        parts += [f"## {table.title}", grid(table.columns, ([short(cell) for cell in line] for line in table.rows))]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def as_object(row):
    spread = {name: figure(row.values) if row.values else None
              for name, figure in (("median", median), ("min", min), ("max", max))}
    return {
        "job": row.job, "contender": row.contender, "unit": row.unit, "lines": row.lines,
        **spread, "values": row.values, "ratio": median(row.ratios) if row.ratios else None, "ratios": row.ratios,
        "ratio_of": "pipeline to contender" if row.is_floor else "contender to pipeline",
        "goals": [goal.text() for goal in row.goals], "met": row.is_met(),
        "cpu_seconds": row.cpu_seconds, "peak_bytes": row.peak_bytes, "problem": row.problem,
    }


def as_json(recorded, report):
    tables = [{"title": table.title, "columns": table.columns, "rows": table.rows} for table in report.tables]
    whole = {"recorded": recorded, "rows": [as_object(row) for row in report.rows], "tables": tables}
    return json.dumps(whole, indent=2) + "\n"
