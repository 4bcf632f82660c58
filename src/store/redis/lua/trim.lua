-- KEYS: epoch, meta, log.
-- ARGV: epoch, most events, most bytes, time of the oldest to keep, most entries and most bytes to drop now.
-- Answers {0, latest epoch or false} when fenced, else {1, entries dropped for their age, their number and their bytes,
-- whether there is more to drop}.
local latest = redis.call('GET', KEYS[1])
if latest ~= ARGV[1] then
    return {0, latest}
end
local meta = redis.call('HMGET', KEYS[2], 'last', 'bytes')
local last, bytes = tonumber(meta[1] or '0'), tonumber(meta[2] or '0')
if not last or not bytes then
    return redis.error_reply('CORRUPT meta')
end
local most_events, most_bytes, since = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local limit, limit_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
-- Numbers may be missing in the log, so entries are counted.
local count = redis.call('XLEN', KEYS[3])
local dropped, freed, more, kept, from, chunk = 0, 0, 0, nil, '-', 1
local old, many, large = 0, 0, 0
while not kept do
    local entries = redis.call('XRANGE', KEYS[3], from, '+', 'COUNT', chunk)
    if #entries == 0 then
        kept, bytes = digits(last + 1) .. '-0', 0
    end
    for _, entry in ipairs(entries) do
        -- What nobody can read is as old as can be, and was not counted.
        local fields, time, size = entry[2], '0', 0
        if #fields == 4 and fields[1] == 't' and fields[3] == 'p' and string.match(fields[2], '^%d+$') then
            time, size = fields[2], #fields[4]
        end
        local too_old, too_many = greater(since, time), count > most_events
        if not too_old and not too_many and bytes <= most_bytes then
            kept = entry[1]
            break
        end
        if dropped == limit or freed >= limit_bytes then
            kept, more = entry[1], 1
            break
        end
        if too_old then
            old = old + 1
        elseif too_many then
            many = many + 1
        else
            large = large + 1
        end
        dropped, count, freed = dropped + 1, count - 1, freed + size
        bytes = math.max(0, bytes - size)
        from = '(' .. entry[1]
    end
    -- Most often there is nothing to drop, and the first entry shows it.
    chunk = 100
end
if dropped > 0 then
    -- A full server lets a script go on that has begun to write, and trimming may always begin.
    redis.call('XTRIM', KEYS[3], 'MINID', '=', kept)
    redis.call('HSET', KEYS[2], 'first', string.match(kept, '^%d+'), 'bytes', digits(bytes))
end
return {1, old, many, large, more}
