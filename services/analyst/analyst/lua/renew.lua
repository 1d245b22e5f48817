-- KEYS lease; ARGV token, lease_ms -> 1 extended, 0 lost
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
