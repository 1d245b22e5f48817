#!lua flags=allow-oom
-- KEYS[1] stream, KEYS[2] dead letters, ARGV[1] group, ARGV[2] about how many letters are kept, then the payload, the
-- reason and the id of each entry to set aside. Files the entries and acknowledges them, also in a server that is full:
-- one that stayed pending would keep all behind it from being trimmed, and the server full. One that is not pending any
-- more was filed by another consumer that had it in hand. Returns for each whether it was filed now, 1 or 0.
local filed = {}
for i = 3, #ARGV, 3 do
    local id = ARGV[i + 2]
    filed[#filed + 1] = #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)
    if filed[#filed] == 1 then
        redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'event', ARGV[i], 'reason', ARGV[i + 1], 'id', id)
        redis.call('XACK', KEYS[1], ARGV[1], id)
    end
end
return filed
