-- What quota_take would answer now, read-only. Calls in the future, after the clock was set back, are not counted.
-- KEYS log, block; ARGV limit, window_us -> {free, remaining, wait_us, 'granted' | 'quota' | 'blocked'}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local blocked_until = tonumber(redis.call('GET', KEYS[2]) or 0)
if now < blocked_until then return {0, 0, blocked_until - now, 'blocked'} end

local taken = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now - window), string.format('%.0f', now),
  'WITHSCORES')
local used = #taken / 2
if used < limit then return {1, limit - used, 0, 'granted'} end
return {0, math.max(0, limit - used), tonumber(taken[2 * (used - limit) + 2]) + window - now, 'quota'}
