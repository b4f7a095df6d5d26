-- task: hourly_volume
-- about: events per log type and hour
-- side: archive
-- rows: 10000
SELECT log_type, hour, count(*) AS events
FROM (
    SELECT 'auth' AS log_type, date_trunc('hour', timestamp) AS hour FROM auth_logs
    UNION ALL
    SELECT 'dns' AS log_type, date_trunc('hour', timestamp) AS hour FROM dns_logs
    UNION ALL
    SELECT 'firewall' AS log_type, date_trunc('hour', timestamp) AS hour FROM firewall_logs
) AS all_types
GROUP BY log_type, hour
ORDER BY hour, log_type
