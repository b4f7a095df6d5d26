-- Failed logins from 192.168.1.100.
SELECT timestamp, hostname, pid, auth_method, username, source_ip, source_port
FROM auth_logs
WHERE status = 'Failed'
  AND source_ip = '192.168.1.100'
ORDER BY timestamp, hostname, pid, source_port;
