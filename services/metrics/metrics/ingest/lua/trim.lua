-- KEYS[1] stream, ARGV[1] group (the stream's only reader), ARGV[2] idle ms after which a consumer is stale.
-- Trims behind the oldest unacknowledged entry, and forgets stale consumers with nothing pending (a pending
-- entry would be forgotten with its consumer). One script: no other consumer reads or acknowledges in between.
local stream, group, stale_ms = KEYS[1], ARGV[1], tonumber(ARGV[2])
if redis.call('EXISTS', stream) == 0 then
    return 0
end

local function as_table(pairs)
    local info = {}
    for i = 1, #pairs, 2 do
        info[pairs[i]] = pairs[i + 1]
    end
    return info
end

for _, pairs in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local info = as_table(pairs)
    if info['name'] == group then
        local keep = info['last-delivered-id']
        if info['pending'] > 0 then
            keep = redis.call('XPENDING', stream, group)[2]
        end
        redis.call('XTRIM', stream, 'MINID', '~', keep)
        for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
            local one = as_table(consumer)
            if one['pending'] == 0 and one['idle'] > stale_ms then
                redis.call('XGROUP', 'DELCONSUMER', stream, group, one['name'])
            end
        end
    end
end
return 1
