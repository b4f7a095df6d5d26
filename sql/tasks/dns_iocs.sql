-- task: dns_iocs
-- about: queries for names on a list of indicators, or for names below them
-- side: archive
-- parameter: iocs indicators = data/iocs.txt
SELECT ioc.name AS indicator, query_domain, client_ip, count(*) AS queries, min(timestamp) AS first_seen,
       max(timestamp) AS last_seen
FROM dns_logs
JOIN (VALUES {iocs}) AS ioc (name)
  ON right(concat('.', rtrim(lower(query_domain), '.')), length(ioc.name) + 1) = concat('.', ioc.name)
GROUP BY ioc.name, query_domain, client_ip
ORDER BY queries DESC, indicator, client_ip
