-- Decides a request: charges all of its policies, or none.
--
-- KEYS   what is stored for each charge, and the results of the call
-- ARGV   the present time or '', the ID of the decision, 'p' if the caller only wants to know
--        what would be decided and then 1 if the request may be admitted, and for each
--        charge six values: its limit, cost, the units that it needs to be left, how it
--        counts, and
--          for a calendar window, the ends of the present window and of the next one
--          for a concurrency limit ('p QUOTA'), the lease in microseconds, and nothing
--
-- A charge counts as 's' for a shadow policy, followed by a lease in microseconds if the
-- decision holds the units of the charge that long in place of using them.
--
-- Returns 1, 1 if the request is admitted, the present time, and for each charge four
-- numbers: 1 if it is violated, the units that remain, and the times until more remain and
-- until the charge fits.
local KIND, FIELDS, RESULTS = 1, 6, 4

local n, by = #KEYS - 1, ARGV[2]
local admitted, peek = ARGV[3] == '1' or ARGV[3] == 'p1', string.sub(ARGV[3], 1, 1) == 'p'
local results, fault
if not peek then
  results, fault = recall(KEYS[n + 1], KIND, 2 + n * RESULTS)
  if results or fault then
    return results or fault
  end
end
local now = clock(ARGV[1])

-- First it reads and checks everything.
local charges = {}
for i = 1, n do
  local at = 4 + (i - 1) * FIELDS
  local text, x, y = ARGV[at], tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local need, how = tonumber(ARGV[at + 2]), ARGV[at + 3]
  local c, fits = { cost = tonumber(ARGV[at + 1]) }, nil

  local quota = tonumber(string.match(text, '^p (%d+)$'))
  if quota then
    c.places, fault = seats(KEYS[i], i, now)
    if fault then
      return fault
    end
    c.lease = x
    fits = need == 0 or c.places.used + need <= quota
    c.remaining, c.reset = math.max(quota - c.places.used, 0), 0
    c.wait = need > quota and NEVER or 0
  else
    c.value, fault = get(KEYS[i], i)
    if fault then
      return fault
    end
    c.entry, fault = enter(i, c.value, text, x and { x, y }, now)
    if fault then
      return fault
    end
    local u = c.entry[1]
    fits, c.remaining, c.reset, c.wait = algorithms[u.kind].check(u, now, need)
    c.changed = c.entry.changed or u.changed
    local holds = c.entry.holds
    if holds then
      fits = fits and (need == 0 or need <= c.remaining - holds.used)
      c.remaining = math.max(c.remaining - holds.used, 0)
    end
    c.lease = how ~= '' and tonumber(string.match(how, '%d+'))
    if c.lease then
      c.entry.holds = holds or noPlaces()
    end
  end
  c.violated = not fits
  admitted = admitted and (fits or string.sub(how, 1, 1) == 's')
  charges[i] = c
end

-- Then it charges.
results = { KIND, admitted and 1 or 0, now }
for _, c in ipairs(charges) do
  if admitted and not c.violated and not peek then
    c.remaining = math.max(c.remaining - c.cost, 0)
    if c.lease then
      occupy(c.places or c.entry.holds, by, c.cost, now + c.lease)
      c.changed = c.changed or c.cost > 0
    else
      local u = c.entry[1]
      c.changed = c.changed or c.cost > 0 or #c.entry > 1
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

if peek then
  return results
end

-- It writes last, so that a fault changes nothing.
remember(KEYS[n + 1], results)
for i, c in ipairs(charges) do
  if c.changed and c.places then
    seat(c.places, now, ARGV[1])
  elseif c.changed then
    keep(KEYS[i], c.value, packEntry(c.entry), over(c.entry), now, ARGV[1])
  end
end
return results
