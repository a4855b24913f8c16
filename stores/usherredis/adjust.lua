-- Changes what earlier decisions have charged.
--
-- KEYS   what is stored for each charge, and the results of the call
-- ARGV   the present time or '', and for each charge six values: its limit, the units to
--        charge or, negative, to refund, the instant at which it was charged, the ID of the
--        decision that did, and the last two as in take.lua
--
-- Returns 2, and for each charge the units that were charged or, negative, refunded.
local KIND, FIELDS = 2, 6

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
  local cost, taken, by = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3]
  local c = {}
  c.value, fault = get(KEYS[i], i)
  if fault then
    return fault
  end

  local quota = tonumber(string.match(text, '^p (%d+)$'))
  if quota then
    c.places = places(c.value)
    if not c.places then
      return redis.error_reply('CORRUPT ' .. i)
    end
    free(c.places, now)
    results[i + 1] = settle(c.places, quota, by, cost)
  else
    c.entry, fault = enter(i, c.value, text, x and { x, y }, now)
    if fault then
      return fault
    end
    local u = c.entry[1]
    local moved = algorithms[u.kind].adjust(u, now, taken, cost)
    spread(c.entry, now, taken, moved)
    results[i + 1] = moved
  end
  charges[i] = c
end

remember(KEYS[n + 1], results)
for i, c in ipairs(charges) do
  if c.places then
    local ends = c.places.used > 0 and c.places.last or 0
    keep(KEYS[i], c.value, stored(c.places), ends, now, ARGV[1])
  else
    keep(KEYS[i], c.value, encode(c.entry), over(c.entry), now, ARGV[1])
  end
end
return results
