-- KEYS: epoch, meta, log, sessions, sends, additions.
-- ARGV: epoch, batch's writer and number, now, identity for a new log, log and sequence where the owner has seen it
-- end, the channel to tell and the partition as it is told, number of records, of additions and of sends, account and
-- record of each record, the same of each addition, name and record of each send, payloads of events.
-- Answers {0, latest epoch or false} when fenced or late, else {1, identity of the log, last sequence}.
local latest = redis.call('GET', KEYS[1])
if latest ~= ARGV[1] then
    return {0, latest}
end
local first_record = 13
local first_addition = first_record + 2 * tonumber(ARGV[10])
local first_send = first_addition + 2 * tonumber(ARGV[11])
local first_event = first_send + 2 * tonumber(ARGV[12])
local has_events = #ARGV >= first_event
-- Whatever can fail comes before the first write, so that the whole is written or nothing: a key of a wrong
-- type fails here, and a full server at the first write.
local meta = redis.call('HMGET', KEYS[2], 'log', 'last', 'bytes', 'batch', 'count')
local log, last, bytes = meta[1] or '0', tonumber(meta[2] or '0'), tonumber(meta[3] or '0')
local count = tonumber(meta[5] or redis.call('XLEN', KEYS[3]))
if first_addition > first_record then
    redis.call('HLEN', KEYS[4])
end
if first_event > first_send then
    redis.call('HLEN', KEYS[5])
end
if first_send > first_record then
    redis.call('HLEN', KEYS[6])
end
if not last or not bytes or not count then
    return redis.error_reply('CORRUPT meta')
end
local batch = ARGV[2] .. ' ' .. ARGV[3]
local writer, number = string.match(meta[4] or '', '^(%d+) (%d+)$')
if ARGV[2] ~= '0' then
    if batch == meta[4] then
        return {1, log, digits(last)}
    elseif writer == ARGV[2] and greater(number, ARGV[3]) then
        -- Held up on its way, while its retry and a later one were written.
        return {0, latest}
    end
end
-- Is there more in the log than the counter knows of? A writer finds out with its first batch.
if (writer == '0' or writer ~= ARGV[2])
    and #redis.call('XRANGE', KEYS[3], digits(last + 1) .. '-0', '+', 'COUNT', 1) > 0
then
    return redis.error_reply('CORRUPT meta')
end
if has_events then
    if log == '0' and ARGV[6] ~= '0' then
        log, last = ARGV[6], tonumber(ARGV[7])
    elseif log == ARGV[6] then
        last = math.max(last, tonumber(ARGV[7]))
    end
    if log == '0' then
        log = ARGV[5]
    end
    local i = first_event
    while i <= #ARGV do
        local entry, size, stop = {KEYS[3], '', 't', ARGV[4]}, 0, i + GROUP
        repeat
            last, count, size = last + 1, count + 1, size + #ARGV[i]
            entry[#entry + 1] = 'p'
            entry[#entry + 1] = ARGV[i]
            i = i + 1
        until i > #ARGV or i == stop or size >= GROUP_BYTES
        entry[2] = digits(last) .. '-0'
        redis.call('XADD', unpack(entry))
        bytes = bytes + size
    end
    redis.call('HSET', KEYS[2], 'batch', batch, 'log', log, 'last', digits(last), 'bytes', digits(bytes),
        'count', digits(count))
else
    redis.call('HSET', KEYS[2], 'batch', batch)
end
for i = first_record, first_addition - 2, 2 do
    redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
    redis.call('HDEL', KEYS[6], ARGV[i])
end
-- More at once is more than Lua's stack holds.
for i = first_addition, first_send - 2, 1000 do
    redis.call('HSET', KEYS[6], unpack(ARGV, i, math.min(i + 999, first_send - 1)))
end
for i = first_send, first_event - 2, 2 do
    if ARGV[i + 1] == '' then
        redis.call('HDEL', KEYS[5], ARGV[i])
    else
        redis.call('HSET', KEYS[5], ARGV[i], ARGV[i + 1])
    end
end
if has_events then
    -- It is written, whoever may not be told.
    redis.pcall('PUBLISH', ARGV[8], log .. ' ' .. digits(last) .. ' ' .. ARGV[9])
end
return {1, log, digits(last)}
