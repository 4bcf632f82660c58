-- KEYS: subs, shares. ARGV: name, and if it is to go only when it was not used since: since when, else nothing.
-- Answers 1 if it was there and is gone, else 0.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HLEN', KEYS[2])
if not stored then
    return 0
end
if ARGV[2] ~= '' then
    local used_at = string.match(stored, '^%d+ %d+ ?(%d*)$')
    if not used_at then
        return redis.error_reply('CORRUPT subs')
    end
    -- One of a version that did not note its use may be in use.
    if used_at == '' or not greater(ARGV[2], used_at) then
        return 0
    end
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
