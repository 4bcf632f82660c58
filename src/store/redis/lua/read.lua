-- KEYS: meta, log. ARGV: sequence to read from, most events.
-- Answers {{log, last, first}, entries}: those that hold so many events, if there are so many.
local bounds = redis.call('HMGET', KEYS[1], 'log', 'last', 'first')
local entries, missing, from = {}, tonumber(ARGV[2]), ARGV[1] .. '-0'
local first = math.max(tonumber(ARGV[1]), tonumber(bounds[3] or '1') or 1)
while missing > 0 do
    local most = math.min(math.ceil(missing / GROUP), 1000)
    local found = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', most)
    for _, entry in ipairs(found) do
        entries[#entries + 1] = entry
        -- Of the first one some may have been read before, or dropped.
        local last = tonumber(string.match(entry[1], '^%d+'))
        local events = math.min(math.max(#entry[2] / 2 - 1, 1), last - first + 1)
        missing = missing - math.max(events, 0)
        from = '(' .. entry[1]
    end
    if #found < most then
        break
    end
end
return {bounds, entries}
