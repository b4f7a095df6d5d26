-- All firewall traffic of host 192.168.1.42 between 05:00 and 06:00 UTC on 2024-01-15, from the old table.
-- The times are compared as text: the bounds must not end in Z, and lines with another offset are misplaced.
SELECT "timestamp"::timestamptz AS timestamp,
    parsed_data->>'action' AS action,
    parsed_data->>'src' AS src,
    parsed_data->>'dst' AS dst,
    parsed_data->>'proto' AS proto,
    (parsed_data->>'src_port')::int AS src_port,
    (parsed_data->>'dst_port')::int AS dst_port,
    (parsed_data->>'bytes_sent')::bigint AS bytes_sent,
    parsed_data->>'rule' AS rule
FROM logs
WHERE log_type = 'firewall'
  AND (parsed_data->>'src' = '192.168.1.42' OR parsed_data->>'dst' = '192.168.1.42')
  AND "timestamp" BETWEEN '2024-01-15T05:00:00' AND '2024-01-15T06:00:00'
ORDER BY logs."timestamp", (parsed_data->>'src')::inet, (parsed_data->>'dst')::inet, src_port, dst_port, bytes_sent;
