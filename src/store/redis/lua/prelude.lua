-- Put before every script.

-- The most events in one entry of a log: an entry for each would cost the server twice as much.
local GROUP = 16
-- When an entry has so many bytes no further event joins it: whoever wants one of them gets all.
local GROUP_BYTES = 65536

-- Compares numbers that are 64 bits wide, which Lua's own numbers are not.
local function greater(a, b)
    return #a > #b or (#a == #b and a > b)
end

local function digits(number)
    return string.format('%.0f', number)
end

-- The server's clock in ms.
local function clock()
    local time = redis.call('TIME')
    return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
