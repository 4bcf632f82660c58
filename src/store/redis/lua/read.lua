-- KEYS: meta, log. ARGV: sequence to read from, most events.
-- Answers {{log, last, first}, entries}: those that hold so many events, if there are so many.
local bounds = redis.call('HMGET', KEYS[1], 'log', 'last', 'first')
local entries, missing, from = {}, tonumber(ARGV[2]), ARGV[1] .. '-0'
while missing > 0 do
    local most = math.min(math.ceil(missing / GROUP), 1000)
    local found = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', most)
    for _, entry in ipairs(found) do
        entries[#entries + 1] = entry
        -- Of the first one some may have been read before.
        local events = math.min(#entry[2] / 2 - 1, tonumber(string.match(entry[1], '^%d+')) - ARGV[1] + 1)
        missing = missing - math.max(1, events)
        from = '(' .. entry[1]
    end
    if #found < most then
        break
    end
end
return {bounds, entries}
