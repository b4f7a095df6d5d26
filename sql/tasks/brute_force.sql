-- task: brute_force
-- about: addresses with many failed logins within a short time, wherever that time begins
-- side: archive
-- parameter: failures integer = 10
-- parameter: window duration = 5m
SELECT source_ip, max(in_window) AS most_in_window, min(timestamp) AS first_seen, max(timestamp) AS last_seen,
       count(*) AS failures, count(DISTINCT username) AS usernames, count(DISTINCT hostname) AS hosts
FROM (
    SELECT source_ip, timestamp, username, hostname,
           count(*) OVER (PARTITION BY source_ip ORDER BY timestamp
                          RANGE BETWEEN {window} PRECEDING AND CURRENT ROW) AS in_window
    FROM auth_logs
    WHERE status = 'Failed' AND source_ip IS NOT NULL
) AS failed
GROUP BY source_ip
HAVING max(in_window) >= {failures}
ORDER BY most_in_window DESC, source_ip
