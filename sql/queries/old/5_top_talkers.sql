-- The 20 source addresses with most firewall events, from the old table.
SELECT parsed_data->>'src' AS src, count(*) AS events
FROM logs
WHERE log_type = 'firewall'
GROUP BY parsed_data->>'src'
ORDER BY events DESC, (parsed_data->>'src')::inet
LIMIT 20;
