-- KEYS: epoch, meta, log.
-- ARGV: epoch, most events, most bytes, time of the oldest to keep, most events and most bytes to drop now.
-- Answers {0, latest epoch or false} when fenced, else {1, events dropped for their age, their number and their bytes,
-- whether there is more to drop}.
local latest = redis.call('GET', KEYS[1])
if latest ~= ARGV[1] then
    return {0, latest}
end
local meta = redis.call('HMGET', KEYS[2], 'last', 'bytes', 'count', 'first')
local last, bytes, first = tonumber(meta[1] or '0'), tonumber(meta[2] or '0'), tonumber(meta[4] or '1')
-- Numbers may be missing in the log, so events are counted.
local count = tonumber(meta[3] or redis.call('XLEN', KEYS[3]))
if not last or not bytes or not count or not first then
    return redis.error_reply('CORRUPT meta')
end
local most_events, most_bytes, since = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local limit, limit_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local dropped, freed, more, kept, from, chunk = 0, 0, 0, nil, '-', 1
local old, many, large = 0, 0, 0

-- Drops one event, or says why not: it is to be kept, or enough was done for now.
local function drop(time, size, counts)
    local too_old, too_many = greater(since, time), count > most_events
    if not too_old and not too_many and bytes <= most_bytes then
        return false
    end
    if dropped == limit or freed >= limit_bytes then
        more = 1
        return false
    end
    if too_old then
        old = old + 1
    elseif too_many then
        many = many + 1
    else
        large = large + 1
    end
    dropped, count, freed = dropped + 1, count - counts, freed + size
    bytes = math.max(0, bytes - size)
    return true
end

while not kept do
    local entries = redis.call('XRANGE', KEYS[3], from, '+', 'COUNT', chunk)
    if #entries == 0 then
        kept, first, bytes, count = digits(last + 1) .. '-0', last + 1, 0, 0
    end
    for _, entry in ipairs(entries) do
        local fields, sequence = entry[2], tonumber(string.match(entry[1], '^%d+'))
        local events = #fields / 2 - 1
        -- What nobody can read is as old as can be, and was not counted.
        local readable = events >= 1 and fields[1] == 't' and string.match(fields[2], '^%d+$')
        for i = 3, #fields, 2 do
            readable = readable and fields[i] == 'p'
        end
        if readable then
            for i = 1, events do
                local number = sequence - events + i
                -- An entry goes as a whole: an earlier trim may have dropped some of its events.
                if number >= first and not drop(fields[2], #fields[2 + 2 * i], 1) then
                    kept, first = entry[1], number
                    break
                end
            end
        elseif not drop('0', 0, 0) then
            kept, first = entry[1], sequence
        end
        if kept then
            break
        end
        from = '(' .. entry[1]
    end
    -- Most often there is nothing to drop, and the first entry shows it.
    chunk = math.ceil(100 / GROUP)
end
if dropped > 0 then
    -- A full server lets a script go on that has begun to write, and trimming may always begin.
    redis.call('XTRIM', KEYS[3], 'MINID', '=', kept)
    redis.call('HSET', KEYS[2], 'first', digits(first), 'bytes', digits(bytes), 'count', digits(count))
end
return {1, old, many, large, more}
