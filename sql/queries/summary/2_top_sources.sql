-- The 5 source addresses with most firewall records.
SELECT src, count(*) AS records
FROM firewall_logs
GROUP BY src
ORDER BY records DESC, src
LIMIT 5;
