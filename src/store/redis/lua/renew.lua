-- KEYS: lease, epoch. ARGV: the lease as stored, its epoch, ttl in ms. Answers 1 renewed, 2 lost, 3 missing.
local held = redis.call('GET', KEYS[1])
if held == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    return 1
end
local latest = redis.call('GET', KEYS[2])
if held or (latest and greater(latest, ARGV[2])) then
    return 2
end
return 3
