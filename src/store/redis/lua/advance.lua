-- KEYS: subs, meta. ARGV: name, identity of the log, sequence.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then
    local log, sequence = string.match(stored, '^(%d+) (%d+)$')
    if not log then
        return redis.error_reply('CORRUPT subs')
    end
    if log == ARGV[2] then
        if not greater(ARGV[3], sequence) then
            return 0
        end
    elseif (redis.call('HGET', KEYS[2], 'log') or '0') ~= ARGV[2] then
        return 0
    end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
return 1
