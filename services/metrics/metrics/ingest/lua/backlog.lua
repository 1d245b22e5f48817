-- KEYS[1] stream, ARGV[1] group, ARGV[2] field of the event. Returns {entries not acknowledged yet, age of the oldest
-- of them in ms}. The first is -1 when the server has lost count of it. An event is as old as it says itself: one that
-- waited in a journal has a new id. Several writers take turns, so the oldest is looked for among the first entries.
local stream, group, field = KEYS[1], ARGV[1], ARGV[2]
local LOOK_AT = 20
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

local from = '(' .. last
if pending > 0 then
    from = redis.call('XPENDING', stream, group)[2]
end
local entries = redis.call('XRANGE', stream, from, '+', 'COUNT', LOOK_AT)
if #entries == 0 then
    return {0, 0}
end
local oldest_ms = tonumber(string.match(entries[1][1], '^%d+'))
for _, entry in ipairs(entries) do
    for i = 1, #entry[2], 2 do
        local at_us = entry[2][i] == field and string.match(entry[2][i + 1], '"at_us":%s*(%d+)')
        if at_us then
            oldest_ms = math.min(oldest_ms, math.floor(tonumber(at_us) / 1000))
        end
    end
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
return {undelivered < 0 and -1 or undelivered + pending, now_ms - oldest_ms}
