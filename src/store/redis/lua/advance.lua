-- KEYS: subs, meta. ARGV: name, identity of the log, sequence, now, 1 to leave one alone that is not there.
-- Answers 1 if it is there then, else 0.
local log, sequence, used_at = ARGV[2], ARGV[3], ARGV[4]
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then
    local stored_log, stored_sequence, stored_used_at = string.match(stored, '^(%d+) (%d+) ?(%d*)$')
    if not stored_log then
        return redis.error_reply('CORRUPT subs')
    end
    local moves
    if stored_log == log then
        moves = greater(sequence, stored_sequence)
    else
        moves = (redis.call('HGET', KEYS[2], 'log') or '0') == log
    end
    if not moves then
        log, sequence = stored_log, stored_sequence
    end
    if greater(stored_used_at, used_at) then
        used_at = stored_used_at
    end
elseif ARGV[5] == '1' then
    return 0
end
local value = log .. ' ' .. sequence .. ' ' .. used_at
if value ~= stored then
    redis.call('HSET', KEYS[1], ARGV[1], value)
end
return 1
