-- KEYS: epoch, meta, log, sessions, sends, additions.
-- ARGV: epoch, batch's writer and number, now, identity for a new log, log and sequence where the owner has seen it
-- end, the channel to tell and the partition as it is told, number of records, of additions and of sends, account and
-- record of each record, the same of each addition, name and record of each send, payloads of events.
-- Answers {0, latest epoch or false} when fenced or late, else {1, identity of the log, last sequence}.
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
redis.call('HLEN', KEYS[6])
local log, last, bytes = meta[1] or '0', tonumber(meta[2] or '0'), tonumber(meta[3] or '0')
if not last or not bytes then
    return redis.error_reply('CORRUPT meta')
end
local batch = ARGV[2] .. ' ' .. ARGV[3]
if ARGV[2] ~= '0' then
    local writer, number = string.match(meta[4] or '', '^(%d+) (%d+)$')
    if batch == meta[4] then
        return {1, log, digits(last)}
    elseif writer == ARGV[2] and greater(number, ARGV[3]) then
        -- Held up on its way, while its retry and a later one were written.
        return {0, latest}
    end
end
local first_record = 13
local first_addition = first_record + 2 * tonumber(ARGV[10])
local first_send = first_addition + 2 * tonumber(ARGV[11])
local first_event = first_send + 2 * tonumber(ARGV[12])
if #ARGV >= first_event then
    if log == '0' and ARGV[6] ~= '0' then
        log, last = ARGV[6], tonumber(ARGV[7])
    elseif log == ARGV[6] then
        last = math.max(last, tonumber(ARGV[7]))
    end
    if log == '0' then
        log = ARGV[5]
    end
    for i = first_event, #ARGV do
        last = last + 1
        redis.call('XADD', KEYS[3], digits(last) .. '-0', 't', ARGV[4], 'p', ARGV[i])
        bytes = bytes + #ARGV[i]
    end
    redis.call('HSET', KEYS[2], 'batch', batch, 'log', log, 'last', digits(last), 'bytes', digits(bytes))
else
    redis.call('HSET', KEYS[2], 'batch', batch)
end
for i = first_record, first_addition - 2, 2 do
    redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
    redis.call('HDEL', KEYS[6], ARGV[i])
end
for i = first_addition, first_send - 2, 2 do
    redis.call('HSET', KEYS[6], ARGV[i], ARGV[i + 1])
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
    redis.pcall('PUBLISH', ARGV[8], log .. ' ' .. digits(last) .. ' ' .. ARGV[9])
end
return {1, log, digits(last)}
