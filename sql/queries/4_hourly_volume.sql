-- Events per log type per hour (UTC; in Postgres: of the session's time zone).
SELECT 'auth' AS log_type, date_trunc('hour', timestamp) AS hour, count(*) AS events
FROM auth_logs
GROUP BY date_trunc('hour', timestamp)
UNION ALL
SELECT 'dns' AS log_type, date_trunc('hour', timestamp) AS hour, count(*) AS events
FROM dns_logs
GROUP BY date_trunc('hour', timestamp)
UNION ALL
SELECT 'firewall' AS log_type, date_trunc('hour', timestamp) AS hour, count(*) AS events
FROM firewall_logs
GROUP BY date_trunc('hour', timestamp)
ORDER BY log_type, hour;
