-- What quota_take would answer now, read-only; slots ahead, of a clock that was set back, are left to it.
-- KEYS log, block; ARGV limit, window_us, share -> {free, remaining, wait_us, 'granted' | 'quota' | 'blocked'}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limit, window, share = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local blocked_until = tonumber(redis.call('GET', KEYS[2]) or 0)
if now < blocked_until then return {0, 0, blocked_until - now, 'blocked'} end

local taken = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now - window), string.format('%.0f', now),
  'WITHSCORES')
local used = #taken / 2
if used < share then return {1, limit - used, 0, 'granted'} end
return {0, math.max(0, limit - used), tonumber(taken[2 * (used - share) + 2]) + window - now, 'quota'}
