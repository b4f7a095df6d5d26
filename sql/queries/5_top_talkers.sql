-- The 20 source addresses with most firewall events.
-- Equal counts go by address: by its text here, by its number in Postgres.
SELECT src, count(*) AS events
FROM firewall_logs
GROUP BY src
ORDER BY events DESC, src
LIMIT 20;
