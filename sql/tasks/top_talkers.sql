-- task: top_talkers
-- about: source addresses with most firewall events
-- side: archive
-- parameter: limit integer = 20
SELECT src, count(*) AS events, sum(bytes_sent) AS bytes_sent, count(DISTINCT dst) AS destinations
FROM firewall_logs
GROUP BY src
ORDER BY events DESC, src
LIMIT {limit}
