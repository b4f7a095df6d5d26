"""Polars, in a process of its own.

    python -m peers.polars_peer LOGS OUT     lines to zstd Parquet, by the engine that is faster at it
"""
import json
import sys

import polars as pl

from .measure import Clock
from .parses import FORMS

VALUE = {
    "all": lambda piece: piece,
    "value": lambda piece: piece.str.splitn("=", 2).struct.field("field_1"),
    "brackets": lambda piece: piece.str.strip_chars("()"),
    "digits": lambda piece: piece.str.extract(r"(\d+)", 1),
}
CAST = {
    "time": lambda value: value.str.to_datetime("%Y-%m-%dT%H:%M:%S%.3fZ", time_unit="ms", time_zone="UTC"),
    "text": lambda value: value,
    "ip": lambda value: value,
    "u16": lambda value: value.cast(pl.Int32),
    "u32": lambda value: value.cast(pl.Int64),
}


def parquet(logs, out):
    clock = Clock()
    line, sinks = pl.col("line"), []
    for name, form in FORMS.items():
        last = max(field.place for field in form.fields)
        pieces = line.str.split_exact(form.separator, last - 1).alias("pieces")
        columns = [
            CAST[field.kind](VALUE[field.within](pl.col("pieces").struct.field(f"field_{field.place - 1}")))
            .alias(field.name) for field in form.fields
        ]
        lines = pl.scan_lines(f"{logs}/*.log", name="line").filter(line.str.contains(form.marker, literal=True))
        sinks.append(lines.select(pieces).select(columns)
                     .sink_parquet(f"{out}/{name}.parquet", compression="zstd", lazy=True))
    pl.collect_all(sinks, engine="in-memory")
    return clock.figures()


if __name__ == "__main__":
    print(json.dumps(parquet(*sys.argv[1:])))
