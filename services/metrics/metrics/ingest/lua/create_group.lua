#!lua flags=allow-oom
-- KEYS[1] stream, ARGV[1] group. Makes the group, also in a server that is full: only its reader can empty it.
return redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
