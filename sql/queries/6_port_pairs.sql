-- The 20 source-destination pairs with most firewall events to port 3389.
-- Equal counts go by address: by its text here, by its number in Postgres.
SELECT src, dst, count(*) AS events
FROM firewall_logs
WHERE dst_port = 3389
GROUP BY src, dst
ORDER BY events DESC, src, dst
LIMIT 20;
