-- Hand the lease over at once. KEYS lease; ARGV token, channel, message -> 1 released, 0 not this token's
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1
