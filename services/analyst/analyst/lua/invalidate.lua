-- Drop the entry and revoke the lease, so that a flight in the air stores nothing.
-- KEYS entry, lease; ARGV channel, message -> 1 if there was an entry with a result, else 0
local stored = redis.call('HEXISTS', KEYS[1], 'payload')
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return stored
