-- All DNS queries for evil-domain.com, from the old table.
SELECT "timestamp"::timestamptz AS timestamp,
    parsed_data->>'client_ip' AS client_ip,
    parsed_data->>'query_domain' AS query_domain,
    parsed_data->>'query_type' AS query_type,
    parsed_data->>'server_ip' AS server_ip,
    parsed_data->>'response_code' AS response_code
FROM logs
WHERE log_type = 'dns'
  AND parsed_data->>'query_domain' = 'evil-domain.com'
ORDER BY logs."timestamp", (parsed_data->>'client_ip')::inet, query_type, (parsed_data->>'server_ip')::inet;
