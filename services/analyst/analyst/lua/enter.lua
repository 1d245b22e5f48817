-- Look at the entry and take the lease in one step. The lease of the same token counts as taken:
-- a command that timed out at the client may have run, and may be sent again.
-- What was stored more than a second ahead is of a clock that was set back since, and counts as not there.
-- KEYS entry, lease; ARGV token, lease_ms -> {state, payload or failure or owner, age_ms or lease_ms}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local entry = redis.call('HMGET', KEYS[1],
  'payload', 'stored_ms', 'fresh_until_ms', 'serve_until_ms', 'failure', 'retry_at_ms', 'failed_ms')
if tonumber(entry[2] or 0) > now + 1000 then entry[1], entry[2] = false, false end
if tonumber(entry[7] or 0) > now + 1000 then entry[6] = false end
local payload, age = entry[1], now - tonumber(entry[2] or now)
local fresh = payload and now < tonumber(entry[3])
local usable = payload and now < tonumber(entry[4])

if fresh then return {'HIT', payload, age} end
if now < tonumber(entry[6] or 0) then
  if payload then return {'STALE', payload, age} end
  return {'FAILED', entry[5], 0}
end

local owner = redis.call('GET', KEYS[2])
if not owner or owner == ARGV[1] then
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
  if usable then return {'REFRESH', payload, age} end
  return {'COMPUTE', payload, age}
end
if usable then return {'STALE', payload, age} end
return {'WAIT', owner, redis.call('PTTL', KEYS[2])}
