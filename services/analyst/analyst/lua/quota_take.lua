-- Take one slot of an exact sliding log, on Redis's clock. The same member again is the same slot: a command that
-- timed out at the client may have run, and may be sent again. A block set by the provider comes first.
-- Nothing is granted above `share`, which is the limit or less of it; `remaining` is of the limit all the same.
-- KEYS log, block; ARGV member, limit, window_us, share -> {granted, remaining, wait_us, 'granted' | 'quota' | 'blocked'}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limit, window, share = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - window))
-- Slots ahead are of a clock that was set back since. They may just have been taken, so they count from now on.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')) do
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), member)
end
local used = redis.call('ZCARD', KEYS[1])
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return {1, math.max(0, limit - used), 0, 'granted'} end

local blocked_until = tonumber(redis.call('GET', KEYS[2]) or 0)
if now < blocked_until then return {0, 0, blocked_until - now, 'blocked'} end
if used < share then
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
  redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000) + 1000)
  return {1, limit - used - 1, 0, 'granted'}
end
-- The slot whose end makes room; not simply the oldest, because the limit may have been lowered.
local slot = redis.call('ZRANGE', KEYS[1], used - share, used - share, 'WITHSCORES')
return {0, math.max(0, limit - used), tonumber(slot[2]) + window - now, 'quota'}
