-- KEYS: meta, log. ARGV: ID to read from, most entries. Answers {{log, last, first}, entries}.
local bounds = redis.call('HMGET', KEYS[1], 'log', 'last', 'first')
-- To read none is answered with false instead of a list.
local entries = redis.call('XRANGE', KEYS[2], ARGV[1], '+', 'COUNT', ARGV[2]) or {}
return {bounds, entries}
