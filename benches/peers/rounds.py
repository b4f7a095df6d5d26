"""Contenders in turn, round by round; and what came of it as rows of the table."""
import sys
from dataclasses import dataclass, field
from operator import attrgetter
from statistics import median

from .measure import Failed

PIPELINE = "pipeline"


@dataclass
class Goal:
    """Of a ratio, or of the value itself where there is none."""

    limit: float
    is_at_least: bool = False

    def is_met(self, value):
        return value >= self.limit if self.is_at_least else value <= self.limit

    def text(self):
        return f"at {'least' if self.is_at_least else 'most'} {self.limit:g}"


@dataclass
class Row:
    """One contender in one job. A ratio is that of a peer to pipeline, or, of a floor, that of pipeline to it."""

    job: str
    contender: str
    unit: str = "s"
    values: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    is_floor: bool = False
    goals: list[Goal] = field(default_factory=list)
    lines: int | None = None
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    problem: str | None = None

    def judged(self):
        """What the goals are about: the ratio, or else the value."""
        figures = self.ratios or self.values
        return median(figures) if figures else None

    def is_met(self):
        judged = self.judged()
        return None if judged is None or not self.goals else all(goal.is_met(judged) for goal in self.goals)


@dataclass
class Table:
    """Details beside the one table: cells as they are printed, numbers as they are."""

    title: str
    columns: list[str]
    rows: list[list]


@dataclass
class Report:
    """What a job measured."""

    rows: list[Row] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


NOT_INSTALLED = "not installed"


def say(text):
    print(text, file=sys.stderr, flush=True)


def reason(problem):
    """On one line; whatever went wrong with one contender must not lose the figures of others."""
    return str(problem) if isinstance(problem, (Failed, OSError)) else repr(problem)


def play(contenders, count):
    """Samples by contender: each runs once in every round, in an order that turns; one that fails plays no more.

    Returns them with the reasons of those that failed, by contender too.
    """
    samples, problems = {name: [] for name in contenders}, {}
    for number in range(count):
        for name in sorted(contenders, key=list(contenders).index, reverse=number % 2 == 1):
            if name in problems:
                continue
            try:
                sample = contenders[name]()
            except Exception as problem:
                problems[name] = reason(problem)
                say(f"  {name} failed: {problems[name]}")
            else:
                samples[name].append(sample)
                say(f"  round {number + 1}: {name} {sample.value:.4g}")
    return samples, problems


def rows(job, played, unit="s", floors=(), goals=None, value=attrgetter("value"), without=(),
         is_per_line=False):
    """A row for each contender; compared per line where not all of them get all lines."""
    samples, problems = played
    made = []
    for name, own in samples.items():
        if name in without:
            continue
        row = Row(job, name, unit, [value(sample) for sample in own], is_floor=name in floors,
                  goals=(goals or {}).get(name, []), problem=problems.get(name))
        row.lines = own[0].lines if own else None
        row.cpu_seconds = [sample.cpu_seconds for sample in own if sample.cpu_seconds is not None]
        row.peak_bytes = [sample.peak_bytes for sample in own if sample.peak_bytes is not None]
        if name != PIPELINE:
            for one, other in zip(own, samples.get(PIPELINE, [])):
                ratio = value(one) / value(other)
                if is_per_line:
                    ratio *= other.lines / one.lines
                row.ratios.append(1 / ratio if row.is_floor else ratio)
        made.append(row)
    return made
