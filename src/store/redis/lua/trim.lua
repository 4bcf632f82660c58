-- KEYS: epoch, meta, log. ARGV: epoch, first sequence to keep.
-- Answers {0, latest epoch or false} when fenced, else {1}.
local latest = redis.call('GET', KEYS[1])
if latest ~= ARGV[1] then
    return {0, latest}
end
local meta = redis.call('HMGET', KEYS[2], 'last', 'first')
local last, first = tonumber(meta[1] or '0'), tonumber(meta[2] or '1')
if not last or not first then
    return redis.error_reply('CORRUPT meta')
end
local kept = math.min(tonumber(ARGV[2]), last + 1)
if kept > first then
    -- A full server lets a script go on that has begun to write, and trimming may always begin.
    redis.call('XTRIM', KEYS[3], 'MINID', '=', string.format('%.0f-0', kept))
    redis.call('HSET', KEYS[2], 'first', string.format('%.0f', kept))
end
return {1}
