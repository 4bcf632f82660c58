-- KEYS: shares. ARGV: subscription, member, ttl in ms. Answers 1 if it is the member's then, else 0.
local now, ttl = clock(), tonumber(ARGV[3])
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held then
    local held_until, member = string.match(held, '^(%d+) (.*)$')
    if not member then
        return redis.error_reply('CORRUPT shares')
    end
    if member ~= ARGV[2] and tonumber(held_until) > now then
        return 0
    end
end
local remaining = redis.call('PTTL', KEYS[1])
-- A full server lets a script go on that has begun to write: who has a share can keep it.
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], digits(now + ttl) .. ' ' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], digits(math.max(remaining, ttl)))
return 1
