-- KEYS: active. ARGV: how long the day is kept in ms, accounts.
-- Answers about how many different accounts were noted so far.
if ARGV[2] then
    for first = 2, #ARGV, 1000 do
        redis.call('PFADD', KEYS[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
    end
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return redis.call('PFCOUNT', KEYS[1])
