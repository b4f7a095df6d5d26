-- All DNS queries for evil-domain.com.
SELECT timestamp, client_ip, query_domain, query_type, server_ip, response_code
FROM dns_logs
WHERE query_domain = 'evil-domain.com'
ORDER BY timestamp, client_ip, query_type, server_ip;
