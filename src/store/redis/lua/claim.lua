-- KEYS: lease, epoch. ARGV: owner, ttl in ms, floor or nothing.
-- Answers {0, owner, remaining ms} when another has it, {2} when there is neither an epoch nor a floor, else {1, the new
-- epoch}.
local held = redis.call('GET', KEYS[1])
if held then
    local owner = string.match(held, '^%d+ (.*)$')
    if not owner then
        return redis.error_reply('CORRUPT lease')
    end
    if owner ~= ARGV[1] then
        return {0, owner, redis.call('PTTL', KEYS[1])}
    end
end
local stored = redis.call('GET', KEYS[2])
if not stored and ARGV[3] == '' then
    return {2}
end
stored = stored or '0'
if not string.match(stored, '^%d+$') then
    return redis.error_reply('CORRUPT epoch')
end
-- Epochs run ahead of the clock: a server that has lost its data does not give out one that an owner still holds
-- from before.
local latest = stored
for _, floor in ipairs({ARGV[3], digits(clock())}) do
    if greater(floor, latest) then
        latest = floor
    end
end
if latest ~= stored then
    redis.call('SET', KEYS[2], latest)
end
redis.call('INCR', KEYS[2])
local epoch = redis.call('GET', KEYS[2])
redis.call('SET', KEYS[1], epoch .. ' ' .. ARGV[1], 'PX', ARGV[2])
return {1, epoch}
