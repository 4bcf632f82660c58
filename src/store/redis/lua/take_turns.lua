-- KEYS: pace. ARGV: the interval between turns, the look-ahead (both in microseconds), most turns.
-- Answers {turns, microseconds until the first, or until it is worth asking again}. src/store/turns.rs does the same.
local interval, ahead, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local stored = redis.call('GET', KEYS[1]) or '0'
local next = string.match(stored, '^%d+$') and tonumber(stored)
if not next then
    return redis.error_reply('CORRUPT pace')
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local horizon = now + ahead
if next > horizon and next <= horizon + interval then
    return {0, next - horizon}
end
-- Nobody gives out turns so far ahead: the clock went back, or the rate was raised.
local at = math.max(now, math.min(next, horizon))
local count = math.min(most, math.floor((horizon - at) / interval) + 1)
-- A turn that lies behind is as good as none, and so the key may go.
redis.call('SET', KEYS[1], digits(at + count * interval), 'PX', 60000)
return {count, at - now}
