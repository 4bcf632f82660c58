-- KEYS: epoch, meta, log, sessions.
-- ARGV: epoch, now, identity for a new log, number of records, account and record of each, payloads of events.
-- Answers {0, latest epoch or false} when fenced, else {1, identity of the log, last sequence}.
local latest = redis.call('GET', KEYS[1])
if latest ~= ARGV[1] then
    return {0, latest}
end
-- Whatever can fail comes before the first write, so that the whole is written or nothing: a key of a wrong
-- type fails here, and a full server at the first write.
local meta = redis.call('HMGET', KEYS[2], 'log', 'last')
redis.call('XLEN', KEYS[3])
redis.call('HLEN', KEYS[4])
local log, last = meta[1] or '0', tonumber(meta[2] or '0')
if not last then
    return redis.error_reply('CORRUPT meta')
end
local first_event = 5 + 2 * tonumber(ARGV[4])
if #ARGV >= first_event then
    if log == '0' then
        log = ARGV[3]
    end
    for i = first_event, #ARGV do
        last = last + 1
        redis.call('XADD', KEYS[3], string.format('%.0f-0', last), 't', ARGV[2], 'p', ARGV[i])
    end
    redis.call('HSET', KEYS[2], 'log', log, 'last', string.format('%.0f', last))
end
for i = 5, first_event - 2, 2 do
    redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
end
return {1, log, string.format('%.0f', last)}
