-- The 20 source-destination pairs with most firewall events to port 3389, from the old table.
SELECT parsed_data->>'src' AS src, parsed_data->>'dst' AS dst, count(*) AS events
FROM logs
WHERE log_type = 'firewall'
  AND parsed_data->>'dst_port' = '3389'
GROUP BY parsed_data->>'src', parsed_data->>'dst'
ORDER BY events DESC, (parsed_data->>'src')::inet, (parsed_data->>'dst')::inet
LIMIT 20;
