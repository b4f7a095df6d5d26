"""pipeline beside its peers, on the standard data, in one run, as one table (`make bench-peers`).

`job_*` are the jobs in their order; `*_peer` run in processes of their own, with the packages of `requirements.txt`;
`site` has what jobs share, `rounds` lets contenders play in turn, `measure` says what a process took, `table` prints.
"""
import argparse
import signal
import sys
from pathlib import Path

from . import (environment, job_copy, job_decode, job_memory, job_parquet, job_postgres, job_questions, job_size,
               job_start, table)
from .rounds import NOT_INSTALLED, PIPELINE, Report, Row, reason, say
from .site import FEWER, FILES, ROOT, Site, answer_signals

JOBS = {
    "decode": job_decode, "copy": job_copy, "postgres": job_postgres, "parquet": job_parquet, "size": job_size,
    "questions": job_questions, "memory": job_memory, "start": job_start,
}


def parse_arguments():
    parser = argparse.ArgumentParser(prog="python -m peers", description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=JOBS, help="one job alone")
    parser.add_argument("--lines", type=int, default=environment.STANDARD_LINES)
    parser.add_argument("--rounds", type=int, default=environment.STANDARD_ROUNDS)
    parser.add_argument("--out", type=Path, default=ROOT / "data/runs/peers", help="folder of the table")
    parser.add_argument("--pipeline", type=Path, default=ROOT / "target/release/pipeline")
    parser.add_argument("--decode-bench", type=Path, help="the bench `decode`, built [default: cargo builds it]")
    arguments = parser.parse_args()
    if arguments.lines <= 0 or arguments.lines % (FILES * FEWER):
        parser.error(f"--lines takes a multiple of {FILES * FEWER}")
    if arguments.rounds <= 0:
        parser.error("--rounds takes a number from 1 on")
    for program in filter(None, (arguments.pipeline, arguments.decode_bench)):
        if not program.is_file():
            parser.error(f"{program} does not exist; build it, or name another")
    return arguments


def write(arguments, recorded, report):
    """Names start with the date; a run that is not the whole one says so in its name."""
    parts = [recorded["date"], arguments.only]
    if arguments.lines != environment.STANDARD_LINES:
        parts.append(f"{arguments.lines}-lines")
    name = "-".join(filter(None, parts))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for suffix, form in (("md", table.markdown), ("json", table.as_json)):
        (arguments.out / f"{name}.{suffix}").write_text(form(recorded, report))
    return arguments.out / f"{name}.md"


def stop(*_):
    # a second Ctrl-C must leave no process behind that the first one would have ended
    answer_signals(signal.SIG_IGN)
    raise KeyboardInterrupt


def main():
    arguments = parse_arguments()
    answer_signals(stop)
    recorded, report = environment.describe(arguments), Report()
    with Site(arguments) as site:
        for name, job in JOBS.items():
            if arguments.only in (None, name):
                say(f"{name}:")
                try:
                    measured = job.measure(site)
                except Exception as problem:
                    say(f"  failed: {reason(problem)}")
                    measured = Report([Row(name, PIPELINE, problem=reason(problem))])
                report.rows += measured.rows
                report.tables += measured.tables
                recorded |= site.server_versions()
                # after each, so that what was measured stays whatever happens next
                file = write(arguments, recorded, report)
    print(file.read_text())
    say(f"wrote {file} and its .json")
    return any(row.problem not in (None, NOT_INSTALLED) for row in report.rows)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
