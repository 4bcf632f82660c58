-- KEYS: members. ARGV: what the subscription's members begin with, member, ttl in ms or nothing to leave; only the
-- first to change nothing. Answers the members that are there then.
local now = clock()
if ARGV[2] then
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', digits(now))
    if ARGV[3] == '' then
        redis.call('ZREM', KEYS[1], ARGV[1] .. ARGV[2])
    else
        redis.call('ZADD', KEYS[1], digits(now + tonumber(ARGV[3])), ARGV[1] .. ARGV[2])
    end
    -- Nobody may come any more to see that they have run out.
    local longest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
    if longest then
        redis.call('PEXPIREAT', KEYS[1], digits(tonumber(longest)))
    end
end
local there = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. digits(now), '+inf')) do
    if string.sub(name, 1, #ARGV[1]) == ARGV[1] then
        there[#there + 1] = string.sub(name, #ARGV[1] + 1)
    end
end
return there
