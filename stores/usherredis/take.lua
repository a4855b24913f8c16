-- Decides a request: charges all of its policies, or none.
--
-- KEYS   what is stored for each charge, and the results of the call
-- ARGV   the present time or '', the ID of the decision, 1 if it may be admitted, and for
--        each charge six values: its limit, cost, the units that it needs to be left, 1 for
--        a shadow policy, and
--          for a calendar window, the ends of the present window and of the next one
--          for a concurrency limit ('p QUOTA'), the lease in microseconds, and nothing
--
-- Returns 1, 1 if the request is admitted, the present time, and for each charge four
-- numbers: 1 if it is violated, the units that remain, and the times until more remain and
-- until the charge fits.
local KIND, FIELDS, RESULTS = 1, 6, 4

local n = #KEYS - 1
local results, fault = recall(KEYS[n + 1], KIND, 2 + n * RESULTS)
if results or fault then
  return results or fault
end

local now, by, admitted = clock(ARGV[1]), ARGV[2], ARGV[3] == '1'

-- First it reads and checks everything.
local charges = {}
for i = 1, n do
  local at = 4 + (i - 1) * FIELDS
  local text, x, y = ARGV[at], tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local need, shadow = tonumber(ARGV[at + 2]), ARGV[at + 3] == '1'
  local c, fits = { cost = tonumber(ARGV[at + 1]) }, nil
  c.value, fault = get(KEYS[i], i)
  if fault then
    return fault
  end

  local quota = tonumber(string.match(text, '^p (%d+)$'))
  if quota then
    c.places, c.lease = places(c.value), x
    if not c.places then
      return redis.error_reply('CORRUPT ' .. i)
    end
    free(c.places, now)
    fits = need == 0 or c.places.used + need <= quota
    c.remaining, c.reset = math.max(quota - c.places.used, 0), 0
    c.wait = need > quota and NEVER or 0
  else
    c.entry, fault = enter(i, c.value, text, x and { x, y }, now)
    if fault then
      return fault
    end
    local u = c.entry[1]
    fits, c.remaining, c.reset, c.wait = algorithms[u.kind].check(u, now, need)
    c.changed = c.entry.changed or u.changed
  end
  c.violated = not fits
  admitted = admitted and (fits or shadow)
  charges[i] = c
end

-- Then it charges.
results = { KIND, admitted and 1 or 0, now }
for _, c in ipairs(charges) do
  if admitted and not c.violated then
    c.remaining = math.max(c.remaining - c.cost, 0)
    c.changed = c.changed or c.cost > 0 or c.entry and #c.entry > 1
    if c.places then
      occupy(c.places, by, c.cost, now + c.lease)
    else
      local u = c.entry[1]
      algorithms[u.kind].take(u, now, c.cost)
      spread(c.entry, now, now, c.cost)
      if c.reset == 0 and c.cost > 0 then
        c.reset = algorithms[u.kind].first(u) -- nothing was in use before
      end
    end
  end
  for _, v in ipairs({ c.violated and 1 or 0, c.remaining, c.reset, c.wait }) do
    table.insert(results, v)
  end
end

-- It writes last, so that a fault changes nothing.
remember(KEYS[n + 1], results)
for i, c in ipairs(charges) do
  if c.changed and c.places then
    keep(KEYS[i], c.value, stored(c.places), c.places.last, now, ARGV[1])
  elseif c.changed then
    keep(KEYS[i], c.value, encode(c.entry), over(c.entry), now, ARGV[1])
  end
end
return results
