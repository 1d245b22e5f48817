-- End the lease without a result: for retry_ms no process computes, and a kept payload or the failure is served.
-- KEYS entry, lease; ARGV token, code, retry_ms, channel, message -> 1 recorded, 0 not this token's lease
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1],
  'failure', ARGV[2],
  'failed_ms', string.format('%.0f', now),
  'retry_at_ms', string.format('%.0f', now + ARGV[3]))
if redis.call('HEXISTS', KEYS[1], 'payload') == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
