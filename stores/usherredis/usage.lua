-- The arithmetic that package ratelimit specifies: what a key may use under a limit, and
-- what it has used. It is the same as in a Memory, in whole microseconds.
--
-- All numbers are whole, and doubles hold whole numbers up to 2^53 exactly. That suffices:
-- an instant is below 2^51 until the year 2041, a bucket is full at most 100 years later,
-- and quotas and bursts are at most 10^9. Where a product could be larger, it is computed
-- in two parts.
--
-- A usage is a table with the fields
--
--   text      the limit, as it is stored and compared
--   kind      its algorithm: 'b' token bucket, 'r' rolling window, 'c' calendar window
--   quota, per, burst
--   missed    what was charged under another limit and did not fit here; refunds reduce it
--             first, since these units were never charged here
--   windows   of a calendar window that the caller asks about: the end of the window that
--             contains the caller's present time, and the end of the next one
--   changed   whether it must be stored although nothing was charged
--
-- and with those of its algorithm. Each algorithm is a table of functions:
--
--   start(u, now, debts)      begins a usage with debts, greatest first
--   check(u, now, need)       returns whether need fits, what remains, and the times until
--                             more remains and until need fits (-1: never, 0: fits)
--   take(u, now, cost)        charges what check has found to fit
--   adjust(u, now, at, cost, overdraw)
--                             charges up to cost units, or refunds up to -cost of those
--                             that were charged at an instant; returns what it has moved.
--                             A bucket that is overdrawn charges more than is left
--   debt(u, now)              returns how many units are in use, and until when any are
--   ends(u)                   returns the end of that time alone
--   first(u)                  returns the time after which a first unit can be used again
--   pack(u)                   returns the fields of its algorithm
--   unpack(u, list, now)      sets them from the third value of a list on; returns false
--                             for values that cannot be theirs

local NEVER = -1

local algorithms = part -- by the kind of a limit

-- Reads a limit: 'b QUOTA PER BURST', 'r QUOTA PER' or 'c QUOTA UNIT ZONE'. Returns nil for
-- any other text, and for numbers with which the others could not be computed exactly.
local MOST_UNITS = 10 ^ 9
local function limit(text)
  local kind, quota, per, burst = string.match(text, '^([brc]) (%d+) (%d+) ?(%S*)')
  if not kind then
    return nil
  end
  local u = { text = text, kind = kind, quota = tonumber(quota), per = tonumber(per), burst = tonumber(burst), missed = 0 }
  if u.quota < 1 or u.quota > MOST_UNITS or u.per < 1 or not whole(u.per)
    or kind == 'b' and (not u.burst or u.burst > MOST_UNITS) then
    return nil
  end
  return u
end
