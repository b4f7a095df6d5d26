-- All firewall traffic of host 192.168.1.42 between 05:00 and 06:00 UTC on 2024-01-15.
SELECT timestamp, action, src, dst, proto, src_port, dst_port, bytes_sent, rule
FROM firewall_logs
WHERE (src = '192.168.1.42' OR dst = '192.168.1.42')
  AND timestamp >= '2024-01-15T05:00:00Z'
  AND timestamp < '2024-01-15T06:00:00Z'
ORDER BY timestamp, src, dst, src_port, dst_port, bytes_sent;
