-- KEYS[1] stream, ARGV[1] group. Returns {entries not acknowledged yet, age of the oldest of them in ms}.
-- The first is -1 when the server has lost count of it.
local stream, group = KEYS[1], ARGV[1]
if redis.call('EXISTS', stream) == 0 then
    return {0, 0}
end

local last, pending, undelivered = '0-0', 0, redis.call('XLEN', stream)
for _, pairs in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local info = {}
    for i = 1, #pairs, 2 do
        info[pairs[i]] = pairs[i + 1]
    end
    if info['name'] == group then
        last, pending, undelivered = info['last-delivered-id'], info['pending'], info['lag'] or -1
    end
end

local oldest
if pending > 0 then
    oldest = redis.call('XPENDING', stream, group)[2]
else
    local first = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
    oldest = first and first[1]
end
if not oldest then
    return {0, 0}
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
return {undelivered < 0 and -1 or undelivered + pending, now_ms - tonumber(string.match(oldest, '^%d+'))}
