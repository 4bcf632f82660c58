-- KEYS: epoch, and all that is to go. ARGV: epoch.
-- Answers {0, latest epoch or false} when fenced, else {1}. The epoch stays, so that it only grows whatever comes.
local latest = redis.call('GET', KEYS[1])
if latest ~= ARGV[1] then
    return {0, latest}
end
for i = 2, #KEYS do
    redis.call('UNLINK', KEYS[i])
end
return {1}
