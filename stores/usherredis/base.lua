-- The first part of every script.

-- The present time in microseconds since 1970. A double holds it exactly until the year
-- 2255. A test may set the time with an argument.
local function clock(set)
  if set ~= '' then
    return tonumber(set)
  end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- The text of a whole number for a command of Redis: tostring rounds to 14 digits.
local function digits(n)
  return string.format('%.0f', n)
end

-- Reports whether n is a whole number that a double holds exactly. NaN is not.
local LARGEST = 2 ^ 53
local function whole(n)
  return type(n) == 'number' and n >= 0 and n <= LARGEST and n % 1 == 0
end
