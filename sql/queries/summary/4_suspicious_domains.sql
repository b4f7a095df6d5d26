-- Queries to domains that are known to be bad.
SELECT query_domain, count(*) AS queries
FROM dns_logs
WHERE query_domain IN (
    'evil-domain.com', 'malware-c2.bad', 'suspicious-site.xyz', 'phishing-login.evil', 'data-exfil.bad'
)
GROUP BY query_domain
ORDER BY queries DESC, query_domain;
