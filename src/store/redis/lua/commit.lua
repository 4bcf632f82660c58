-- KEYS: epoch, meta, log, sessions, sends.
-- ARGV: epoch, batch's ID, now, identity for a new log, log and sequence where the owner has seen it end, the channel
-- to tell and the partition as it is told, number of records, number of sends, account and record of each record,
-- name and record of each send, payloads of events.
-- Answers {0, latest epoch or false} when fenced, else {1, identity of the log, last sequence}.
local latest = redis.call('GET', KEYS[1])
if latest ~= ARGV[1] then
    return {0, latest}
end
-- Whatever can fail comes before the first write, so that the whole is written or nothing: a key of a wrong
-- type fails here, and a full server at the first write.
local meta = redis.call('HMGET', KEYS[2], 'log', 'last', 'bytes', 'batch')
redis.call('XLEN', KEYS[3])
redis.call('HLEN', KEYS[4])
redis.call('HLEN', KEYS[5])
local log, last, bytes = meta[1] or '0', tonumber(meta[2] or '0'), tonumber(meta[3] or '0')
if not last or not bytes then
    return redis.error_reply('CORRUPT meta')
end
if ARGV[2] ~= '0' and ARGV[2] == meta[4] then
    return {1, log, digits(last)}
end
local first_record = 11
local first_send = first_record + 2 * tonumber(ARGV[9])
local first_event = first_send + 2 * tonumber(ARGV[10])
if #ARGV >= first_event then
    if log == '0' and ARGV[5] ~= '0' then
        log, last = ARGV[5], tonumber(ARGV[6])
    elseif log == ARGV[5] then
        last = math.max(last, tonumber(ARGV[6]))
    end
    if log == '0' then
        log = ARGV[4]
    end
    for i = first_event, #ARGV do
        last = last + 1
        redis.call('XADD', KEYS[3], digits(last) .. '-0', 't', ARGV[3], 'p', ARGV[i])
        bytes = bytes + #ARGV[i]
    end
    redis.call('HSET', KEYS[2], 'batch', ARGV[2], 'log', log, 'last', digits(last), 'bytes', digits(bytes))
else
    redis.call('HSET', KEYS[2], 'batch', ARGV[2])
end
for i = first_record, first_send - 2, 2 do
    redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
end
for i = first_send, first_event - 2, 2 do
    if ARGV[i + 1] == '' then
        redis.call('HDEL', KEYS[5], ARGV[i])
    else
        redis.call('HSET', KEYS[5], ARGV[i], ARGV[i + 1])
    end
end
if #ARGV >= first_event then
    -- It is written, whoever may not be told.
    redis.pcall('PUBLISH', ARGV[7], log .. ' ' .. digits(last) .. ' ' .. ARGV[8])
end
return {1, log, digits(last)}
