"""Decode to Arrow on one core, against the bare newline scan of the same bytes (`benches/decode.rs`)."""
import json
import re
from statistics import median

from .measure import Failed, run
from .rounds import PIPELINE, Goal, Report, Row, Table, say
from .site import ROOT, size_bytes

JOB = "decode to Arrow, one core"

SCAN = "floor: bare newline scan"
# in each run of the program; the table's rounds are runs of it
ROUNDS = "5"
FIGURES = re.compile(r"(\S+) +newline scan +([\d.]+) GB/s +decode +([\d.]+) GB/s +ratio +([\d.]+)")


def program(site):
    if site.decode_bench:
        return site.decode_bench
    say("  cargo builds the bench")
    built = run(["cargo", "bench", "--bench", "decode", "--no-run", "--message-format=json", "--manifest-path",
                 ROOT / "Cargo.toml"])
    messages = map(json.loads, built.output.splitlines())
    programs = [message["executable"] for message in messages
                if message.get("reason") == "compiler-artifact" and message["target"]["name"] == "decode"]
    if not programs:
        raise Failed("cargo names no program of the bench `decode`; give one with --decode-bench")
    return programs[-1]


def measure(site):
    command = [program(site), "--lines", site.lines, "--rounds", ROUNDS]
    found = {}
    for number in range(site.rounds):
        for types, *figures in FIGURES.findall(run(command).output):
            found.setdefault(types, []).append([float(figure) for figure in figures])
        say(f"  round {number + 1}")
    if not found:
        raise Failed("the bench `decode` prints nothing that can be read")
    # the first is all types: the bytes of the standard data
    gigabytes = size_bytes(site.logs) / 1e9
    scans, decodes, ratios = zip(*next(iter(found.values())))
    own = Row(JOB, PIPELINE, values=[gigabytes / rate for rate in decodes], lines=site.lines)
    scan = Row(JOB, SCAN, values=[gigabytes / rate for rate in scans], lines=site.lines, ratios=list(ratios),
               is_floor=True, goals=[Goal(10)])
    by_type = [[types, *map(median, zip(*figures))] for types, figures in found.items()]
    columns = ["lines", "scan, GB/s", "decode, GB/s", "decode's time in scans"]
    return Report([own, scan], [Table("Decoding by log type", columns, by_type)])
