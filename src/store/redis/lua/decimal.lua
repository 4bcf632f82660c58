-- Put before every script that compares numbers: they are 64 bits wide, which Lua's own numbers are not.
local function greater(a, b)
    return #a > #b or (#a == #b and a > b)
end
