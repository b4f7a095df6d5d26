-- Values as the text that their lines have: what the view `logs` is made of.
--
-- These mirror src/log_type/timestamp/render.rs and src/log_type/render.rs, and tests hold them to each other. What
-- nearly every row needs is a short expression, which the planner puts in the place of the call. What few rows need
-- is kept out of it by plpgsql: an expression that has it all takes longer to prepare, once per leaf and query, than
-- the rows take. Bodies that start with RETURN are parsed now, so that a later search_path does not matter (that is
-- what needs Postgres 14); the others call nothing of ours, and cost 1, as few rows call them: at the usual 100 the
-- server would compile each query's expressions, leaf by leaf, which takes seconds.

-- A time in a form below 511, numbered as in src/log_type/timestamp.rs:
--   0..384   RFC 3339: zone * 7 + digits; zones Z, none, then half hours from -12:00
--   385..390 the same with a space for the T: zone * 3 + digits / 3; zones Z, none
--   391..443 10/Oct/2000:13:55:36 -0700, by half hours from -12:00
--   444, 445 Dec  1 06:55:46 and Dec 01 06:55:46
--   446..453 seconds since the epoch with 0..6 digits, then milliseconds
-- and -1: RFC 3339, UTC, with 0, 3 or 6 digits, the fewest that hold it.
CREATE FUNCTION pipeline_time_text(at timestamptz, form integer) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE STRICT COST 1 AS $$
DECLARE
    local timestamp := at AT TIME ZONE 'UTC';
    separator text := 'T';
    digits integer := form % 7;
    minutes integer;
    zone text := '';
    year text;
BEGIN
    IF form < 0 THEN
        digits := CASE
            WHEN extract(microseconds FROM at)::integer % 1000000 = 0 THEN 0
            WHEN extract(microseconds FROM at)::integer % 1000 = 0 THEN 3
            ELSE 6
        END;
        zone := 'Z';
    ELSIF form < 14 THEN
        zone := CASE WHEN form < 7 THEN 'Z' ELSE '' END;
    ELSIF form < 385 THEN
        minutes := (form / 7 - 2) * 30 - 720;
    ELSIF form < 391 THEN
        separator := ' ';
        digits := (form - 385) % 3 * 3;
        zone := CASE WHEN form < 388 THEN 'Z' ELSE '' END;
    ELSIF form < 444 THEN
        minutes := (form - 391) * 30 - 720;
    ELSIF form = 444 THEN
        RETURN to_char(local, 'Mon ') || lpad(to_char(local, 'FMDD'), 2) || to_char(local, ' HH24:MI:SS');
    ELSIF form = 445 THEN
        RETURN to_char(local, 'Mon DD HH24:MI:SS');
    ELSIF form < 453 THEN
        RETURN abs(floor(extract(epoch FROM at)))::bigint
            || CASE WHEN form > 446 THEN '.' || left(to_char(local, 'US'), form - 446) ELSE '' END;
    ELSIF form = 453 THEN
        RETURN abs(floor(extract(epoch FROM at) * 1000))::bigint;
    ELSE
        RETURN '';
    END IF;
    IF minutes IS NOT NULL THEN
        local := local + make_interval(mins => minutes);
        zone := CASE WHEN minutes < 0 THEN '-' ELSE '+' END || lpad((abs(minutes) / 60)::text, 2, '0')
            || CASE WHEN form < 385 THEN ':' ELSE '' END || lpad((abs(minutes) % 60)::text, 2, '0');
    END IF;
    -- year 0 is what Postgres calls 1 BC
    year := CASE
        WHEN local >= timestamp '0001-01-01' THEN to_char(local, 'YYYY')
        ELSE lpad((-1 - extract(year FROM local))::integer::text, 4, '0')
    END;
    IF form >= 391 THEN
        RETURN to_char(local, 'DD/Mon/') || year || to_char(local, ':HH24:MI:SS ') || zone;
    END IF;
    RETURN year || to_char(
        local,
        '-MM-DD"' || separator || '"HH24:MI:SS' || CASE WHEN digits > 0 THEN '.FF' || digits ELSE '' END
    ) || zone;
END $$;

-- A time that no form is stored for.
CREATE FUNCTION pipeline_plain_time_text(at timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN pipeline_time_text(at, -1);

-- How a kept line writes its event time, where it starts with it; NULL where it does not. Reads what
-- src/log_type/timestamp.rs reads, and like it takes the text only if it says that very time.
CREATE FUNCTION pipeline_kept_time_text(raw bytea, at timestamptz) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 1 AS $$
DECLARE
    months CONSTANT text := 'JanFebMarAprMayJunJulAugSepOctNovDec';
    clock CONSTANT text := '([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60)';
    utc CONSTANT timestamp := at AT TIME ZONE 'UTC';
    kept CONSTANT text := ltrim(encode(raw, 'escape'), E' \t\n\f\r');
    part text[];
    year integer;
    month integer;
    day integer;
    seconds integer;
    fraction text;
    minutes integer := 0;
    days timestamp;
BEGIN
    IF kept ~ '^\d{4}-' THEN
        part := regexp_match(kept, '^(\d{4}-\d\d-\d\d[Tt _]' || clock
            || '(?:[.,](\d+))?(?:[Zz]|([+-])([01]\d|2[0-3]):?([0-5]\d))?)');
        year := substr(part[1], 1, 4);
        month := substr(part[1], 6, 2);
        day := substr(part[1], 9, 2);
        fraction := part[5];
        minutes := coalesce((part[6] || (part[7]::integer * 60 + part[8]::integer))::integer, 0);
    ELSIF kept ~ '^\d\d/' THEN
        part := regexp_match(kept, '^(\d\d/[A-Z][a-z]{2}/\d{4}:' || clock || ' ([+-])([01]\d|2[0-3])([0-5]\d))');
        year := substr(part[1], 8, 4);
        month := (strpos(months, substr(part[1], 4, 3)) + 2) / 3;
        day := substr(part[1], 1, 2);
        minutes := (part[5] || (part[6]::integer * 60 + part[7]::integer))::integer;
    ELSIF kept ~ '^[A-Z]' THEN
        part := regexp_match(kept, '^([A-Z][a-z]{2} (?: \d|\d\d?) ' || clock || '(?:\.(\d+))?)');
        -- a leap second ends the year that it is in
        year := extract(year FROM CASE WHEN part[4] = '60' THEN utc - interval '1 second' ELSE utc END);
        month := (strpos(months, substr(part[1], 1, 3)) + 2) / 3;
        day := trim(substr(part[1], 5, 2));
        fraction := part[5];
    ELSIF kept ~ '^\d' THEN
        part := regexp_match(kept, '^((\d+)(?:\.(\d+))?)');
        -- a product of numerics is exact, a quotient is not
        RETURN CASE
            WHEN length(part[2]) BETWEEN 9 AND 11
            THEN CASE WHEN trunc(part[1]::numeric, 6) = extract(epoch FROM at) THEN part[1] END
            WHEN length(part[2]) BETWEEN 12 AND 14
            THEN CASE WHEN part[2]::numeric * 0.001 = extract(epoch FROM at) THEN part[2] END
            WHEN length(part[2]) BETWEEN 15 AND 17
            THEN CASE WHEN part[2]::numeric * 0.000001 = extract(epoch FROM at) THEN part[2] END
            WHEN length(part[2]) BETWEEN 18 AND 19
            THEN CASE WHEN trunc(part[2]::numeric * 0.000000001, 6) = extract(epoch FROM at) THEN part[2] END
        END;
    END IF;
    IF part IS NULL OR month NOT BETWEEN 1 AND 12 OR day NOT BETWEEN 1 AND 31 THEN
        RETURN NULL;
    END IF;
    days := timestamp '0001-01-01' + make_interval(years => year - 1, months => month - 1, days => day - 1);
    seconds := (part[2]::integer * 60 + part[3]::integer) * 60 + part[4]::integer;
    RETURN CASE
        WHEN extract(month FROM days) = month
            AND days + make_interval(mins => -minutes, secs => seconds)
                + coalesce(left(rpad(fraction, 6, '0'), 6)::integer, 0) * interval '1 microsecond' = utc
        THEN part[1]
    END;
END $$;

-- The event time as the line has it; `form` is the row's. Nearly all are 2024-01-15T00:00:03.731Z.
CREATE FUNCTION pipeline_line_time_text(at timestamptz, form smallint, raw bytea) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN form & 511 = 3 AND at >= timestamptz '0001-01-01 00:00:00+00'
    THEN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.FF3"Z"')
    WHEN form & 511 = 511 THEN coalesce(pipeline_kept_time_text(raw, at), pipeline_time_text(at, -1))
    ELSE pipeline_time_text(at, form & 511)
END;

-- A kept line as text, without the carriage return of its ending; never an error. What is not UTF-8, and NUL, becomes
-- U+FFFD, one for each longest start of a character. encode(.., 'escape') writes \nnn for each byte from 128 on and
-- for NUL, and \\ for a backslash.
CREATE FUNCTION pipeline_line_text(raw bytea) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE STRICT COST 1 AS $$
DECLARE
    escaped text := regexp_replace(encode(raw, 'escape'), '\r$', '');
    next CONSTANT text := '\\2[0-7]{2}';
    valid CONSTANT text := '(?:[^\\]|\\\\|\\3(?:0[2-7]|[123][0-7])' || next
        || '|(?:\\340\\2[4-7][0-7]|\\3(?:4[1-7]|5[0-4]|5[67])' || next || '|\\355\\2[0-3][0-7])' || next
        || '|(?:\\360\\2[2-7][0-7]|\\36[123]' || next || '|\\364\\2[01][0-7])' || next || next || ')';
    cut CONSTANT text := '\\340\\2[4-7][0-7]|\\3(?:4[1-7]|5[0-4]|5[67])' || next || '|\\355\\2[0-3][0-7]'
        || '|(?:\\360\\2[2-7][0-7]|\\36[123]' || next || '|\\364\\2[01][0-7])(?:' || next || ')?|\\[0-3][0-7]{2}';
BEGIN
    IF strpos(escaped, '\') = 0 THEN
        RETURN escaped;
    END IF;
    IF escaped !~ ('^' || valid || '*$') THEN
        SELECT string_agg(coalesce(token[1], '\357\277\275'), '' ORDER BY position) INTO escaped
        FROM regexp_matches(escaped, '(' || valid || '+)|' || cut, 'g') WITH ORDINALITY AS tokens (token, position);
    END IF;
    RETURN convert_from(decode(escaped, 'escape'), 'UTF8');
END $$;

-- An IPv6 address in the canonical text of RFC 5952. Postgres writes ::1:2 as ::0.1.0.2, a form that was given up.
CREATE FUNCTION pipeline_ip6_text(address inet) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT COST 1 AS $$
DECLARE
    low bigint;
BEGIN
    IF host(address) NOT LIKE '::%.%' OR host(address) LIKE '::ffff:%' THEN
        RETURN host(address);
    END IF;
    low := address - inet '::';
    RETURN '::' || CASE WHEN low > 65535 THEN to_hex(low >> 16) || ':' ELSE '' END || to_hex(low & 65535);
END $$;

-- An address in its canonical text.
CREATE FUNCTION pipeline_ip_text(address inet) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN family(address) = 4 THEN host(address) ELSE pipeline_ip6_text(address) END;

-- A number in decimal notation, without an exponent, in the fewest digits that are read back as it. Up to 15 digits
-- (what the cast to numeric keeps) a decimal is told from all others; the server's own text has one digit too many
-- where the number is half way between two others, as 1e23 is.
CREATE FUNCTION pipeline_float_text(number double precision) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN number = 0 THEN number::text
    WHEN number::numeric::double precision = number THEN number::numeric::text
    ELSE number::text::numeric::text
END;
