-- Changes what earlier decisions have charged or hold.
--
-- KEYS   what is stored for each charge, and the results of the call
-- ARGV   the present time or '', and for each charge six values: its limit, the units to
--        charge or, negative, to refund, what to do with them, the ID of the decision that
--        has charged, and the last two as in take.lua
--
-- What to do is the instant at which the decision has charged, or 'h' to change what the
-- decision holds, or 'e' to end that and to charge the units now. An 'o' at the end permits
-- a bucket to charge more than is left.
--
-- Returns 2, and for each charge the units that were charged or, negative, refunded, or by
-- how many the units that the decision holds have changed.
local KIND, FIELDS = 2, 6

-- Changes what an entry has used or holds, and returns how many units it has moved.
local function move(e, now, how, by, cost)
  local u, holds = e[1], e.holds
  local taken, verb, overdraw = tonumber(how), '', false
  if not taken then
    taken, verb, overdraw = string.match(how, '^(%-?%d*)([he]?)(o?)$')
    taken, overdraw = tonumber(taken) or now, overdraw == 'o'
  end
  if verb == 'e' then
    if holds then
      part.places.adjust(holds, 0, by, -holds.used)
    end
    cost = math.max(cost, 0)
  end
  if verb == 'h' or holds and not overdraw then
    local _, left = algorithms[u.kind].check(u, now, 0)
    if verb == 'h' then
      return holds and part.places.adjust(holds, left, by, cost) or 0
    end
    cost = math.min(cost, math.max(left - holds.used, 0))
  end
  local moved = algorithms[u.kind].adjust(u, now, taken, cost, overdraw)
  spread(e, now, taken, moved)
  return moved
end

local n = #KEYS - 1
local results, fault = recall(KEYS[n + 1], KIND, n)
if results or fault then
  return results or fault
end

local now = clock(ARGV[1])
local charges = {}
results = { KIND }
for i = 1, n do
  local at = 2 + (i - 1) * FIELDS
  local text, x, y = ARGV[at], tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local cost, how, by = tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3]
  local c = {}

  local quota = tonumber(string.match(text, '^p (%d+)$'))
  if quota then
    c.places, fault = part.places.read(KEYS[i], i, now)
    if fault then
      return fault
    end
    results[i + 1] = part.places.adjust(c.places, quota, by, cost)
  else
    c.value, fault = get(KEYS[i], i)
    if fault then
      return fault
    end
    c.entry, fault = enter(i, c.value, text, x and { x, y }, now)
    if fault then
      return fault
    end
    results[i + 1] = move(c.entry, now, how, by, cost)
  end
  charges[i] = c
end

remember(KEYS[n + 1], results)
for i, c in ipairs(charges) do
  if c.places then
    part.places.write(c.places, now, ARGV[1])
  else
    keep(KEYS[i], c.value, packEntry(c.entry), over(c.entry), now, ARGV[1])
  end
end
return results
