-- Grant one call of an exact sliding log, on Redis's clock. The same member again is the same call, because a command
-- that timed out at the client may have run. A block set by the provider comes first.
-- KEYS log, block; ARGV member, limit, window_us -> {granted, remaining, wait_us, 'granted' | 'quota' | 'blocked'}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limit, window = tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - window))
-- Calls in the future are from before the clock was set back. They may be recent, so they count from now on.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')) do
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), member)
end
local used = redis.call('ZCARD', KEYS[1])
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return {1, math.max(0, limit - used), 0, 'granted'} end

local blocked_until = tonumber(redis.call('GET', KEYS[2]) or 0)
if now < blocked_until then return {0, 0, blocked_until - now, 'blocked'} end
if used < limit then
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
  redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000) + 1000)
  return {1, limit - used - 1, 0, 'granted'}
end
-- The call whose end makes room. It is not the oldest if the limit was lowered.
local slot = redis.call('ZRANGE', KEYS[1], used - limit, used - limit, 'WITHSCORES')
return {0, math.max(0, limit - used), tonumber(slot[2]) + window - now, 'quota'}
