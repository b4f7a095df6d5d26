-- Records by log type.
SELECT 'auth' AS log_type, count(*) AS records FROM auth_logs
UNION ALL
SELECT 'dns' AS log_type, count(*) AS records FROM dns_logs
UNION ALL
SELECT 'firewall' AS log_type, count(*) AS records FROM firewall_logs
ORDER BY log_type;
