"""The generated lines as the peers parse them: one definition of the fields, put in each engine's own words.

The peers parse these three formats only, with no accounting, no rejects and no line numbers.
"""
from typing import NamedTuple


class Field(NamedTuple):
    """The `place`th piece of a line, from 1; `within` says what of the piece is the value."""

    name: str
    kind: str
    place: int
    within: str = "all"


class Form(NamedTuple):
    """Lines that hold `marker`; `separator` is between their pieces."""

    marker: str
    separator: str
    fields: list[Field]


FORMS = {
    "firewall": Form("|", "|", [
        Field("timestamp", "time", 1), Field("action", "text", 2, "value"), Field("src", "ip", 3, "value"),
        Field("dst", "ip", 4, "value"), Field("proto", "text", 5, "value"), Field("src_port", "u16", 6, "value"),
        Field("dst_port", "u16", 7, "value"), Field("bytes_sent", "u32", 8, "value"), Field("rule", "text", 9, "value"),
    ]),
    "dns": Form(" query: ", " ", [
        Field("timestamp", "time", 1), Field("client_ip", "ip", 3), Field("query_domain", "text", 5),
        Field("query_type", "text", 7), Field("server_ip", "ip", 9, "brackets"), Field("response_code", "text", 10),
    ]),
    "auth": Form(" sshd[", " ", [
        Field("timestamp", "time", 1), Field("hostname", "text", 2), Field("pid", "u32", 3, "digits"),
        Field("status", "text", 4), Field("auth_method", "text", 5), Field("username", "text", 7),
        Field("source_ip", "ip", 9), Field("source_port", "u16", 11),
    ]),
}

POSTGRES_TYPES = {"time": "timestamptz", "text": "text", "ip": "inet", "u16": "integer", "u32": "bigint"}

DUCKDB_VALUE = {
    "all": "{}", "value": "split_part({}, '=', 2)", "brackets": "trim({}, '()')",
    "digits": r"regexp_extract({}, '(\d+)', 1)",
}
DUCKDB_CAST = {
    "time": "strptime({}, '%Y-%m-%dT%H:%M:%S.%gZ')", "text": "{}", "ip": "{}", "u16": "{}::INTEGER",
    "u32": "{}::BIGINT",
}

CLICKHOUSE_VALUE = {
    "all": "{}", "value": "splitByChar('=', {})[2]", "brackets": "trimBoth({}, '()')",
    "digits": r"extract({}, '(\\d+)')",
}
CLICKHOUSE_CAST = {
    "time": "parseDateTime64BestEffort({}, 3, 'UTC')", "text": "{}", "ip": "toIPv4({})", "u16": "toUInt16({})",
    "u32": "toUInt32({})",
}
# the types that its table function finds in Postgres: an inet is text to it
CLICKHOUSE_CAST_FOR_POSTGRES = {**CLICKHOUSE_CAST, "ip": "{}", "u16": "toInt32({})", "u32": "toInt64({})"}


def postgres_table(name):
    """The columns of a plain typed table."""
    return ", ".join(f"{field.name} {POSTGRES_TYPES[field.kind]}" for field in FORMS[name].fields)


def duckdb_lines(logs):
    return (f"SELECT column0 AS line FROM read_csv('{logs}/*.log', delim = '\x07', header = false, quote = '', "
            "escape = '', columns = {'column0': 'VARCHAR'})")


def duckdb_select(name, lines, is_split_once):
    """`lines`: a table with the column `line`. Splitting once is the fastest where all fields are wanted."""
    form = FORMS[name]
    lines = f"{lines} WHERE contains(line, '{form.marker}')"
    if is_split_once:
        lines = f"(SELECT string_split(line, '{form.separator}') AS pieces FROM {lines})"
    columns = []
    for field in form.fields:
        piece = f"pieces[{field.place}]" if is_split_once else f"split_part(line, '{form.separator}', {field.place})"
        value = DUCKDB_VALUE[field.within].format(piece)
        columns.append(f"{DUCKDB_CAST[field.kind].format(value)} AS {field.name}")
    return f"SELECT {', '.join(columns)} FROM {lines}"


def clickhouse_select(name, logs, casts=CLICKHOUSE_CAST):
    form, columns = FORMS[name], []
    for field in form.fields:
        value = CLICKHOUSE_VALUE[field.within].format(f"p[{field.place}]")
        columns.append(f"{casts[field.kind].format(value)} AS {field.name}")
    return (f"SELECT {', '.join(columns)} FROM (SELECT splitByChar('{form.separator}', line) AS p "
            f"FROM file('{logs}/*.log', 'LineAsString', 'line String') WHERE position(line, '{form.marker}') > 0)")
