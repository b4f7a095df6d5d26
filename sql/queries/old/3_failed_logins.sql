-- Failed logins from 192.168.1.100, from the old table.
SELECT "timestamp"::timestamptz AS timestamp,
    parsed_data->>'hostname' AS hostname,
    (parsed_data->>'pid')::bigint AS pid,
    parsed_data->>'auth_method' AS auth_method,
    parsed_data->>'username' AS username,
    parsed_data->>'source_ip' AS source_ip,
    (parsed_data->>'source_port')::int AS source_port
FROM logs
WHERE log_type = 'auth'
  AND parsed_data->>'status' = 'Failed'
  AND parsed_data->>'source_ip' = '192.168.1.100'
ORDER BY logs."timestamp", hostname, pid, source_port;
