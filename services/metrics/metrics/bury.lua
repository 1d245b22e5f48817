#!lua flags=allow-oom
-- KEYS[1] stream, KEYS[2] dead letters, ARGV[1] group, ARGV[2] about how many letters are kept, then the payload, the
-- reason and the id of each entry to set aside. Files the entries and acknowledges them, also in a server that is full:
-- one that stayed pending would keep all behind it from being trimmed, and the server full.
for i = 3, #ARGV, 3 do
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'event', ARGV[i], 'reason', ARGV[i + 1], 'id', ARGV[i + 2])
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[i + 2])
end
return 1
