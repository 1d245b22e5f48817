-- Store a result and tell it to the waiters if the lease is still this token's; an invalidated or expired flight
-- stores nothing.
-- KEYS entry, lease; ARGV token, payload, fresh_ms, serve_ms, keep_ms, channel, message -> 1 stored, 0 not
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1],
  'payload', ARGV[2],
  'stored_ms', string.format('%.0f', now),
  'fresh_until_ms', string.format('%.0f', now + ARGV[3]),
  'serve_until_ms', string.format('%.0f', now + ARGV[4]))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PUBLISH', ARGV[6], ARGV[7] .. ' ' .. ARGV[1] .. ' ' .. ARGV[2])
return 1
