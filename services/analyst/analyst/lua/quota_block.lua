-- The provider said to wait: no slot is granted until then. A longer block stays.
-- KEYS block; ARGV wait_us
local time = redis.call('TIME')
local blocked_until = time[1] * 1000000 + time[2] + tonumber(ARGV[1])
if blocked_until > tonumber(redis.call('GET', KEYS[1]) or 0) then
  redis.call('SET', KEYS[1], string.format('%.0f', blocked_until), 'PX', math.ceil(ARGV[1] / 1000) + 1)
end
return 1
