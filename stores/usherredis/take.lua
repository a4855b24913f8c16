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
  local text, cost, need = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local how, x, y = ARGV[at + 3], tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local places, value, entry, fits, remaining, reset, wait, lease, changed

  local quota = tonumber(string.match(text, '^p (%d+)$'))
  if quota then
    places, fault = part.places.read(KEYS[i], i, now)
    if fault then
      return fault
    end
    lease = x
    fits = need == 0 or places.used + need <= quota
    remaining, reset = math.max(quota - places.used, 0), 0
    wait = need > quota and NEVER or 0
  else
    value, fault = get(KEYS[i], i)
    if fault then
      return fault
    end
    entry, fault = enter(i, value, text, x and { x, y }, now)
    if fault then
      return fault
    end
    local u = entry[1]
    fits, remaining, reset, wait = algorithms[u.kind].check(u, now, need)
    changed = entry.changed or u.changed
    places = entry.holds
    if places then
      fits = fits and (need == 0 or need <= remaining - places.used)
      remaining = math.max(remaining - places.used, 0)
    end
    lease = how ~= '' and tonumber(string.match(how, '%d+'))
    if lease and not places then
      places = part.places.none()
      entry.holds = places
    end
  end
  admitted = admitted and (fits or string.sub(how, 1, 1) == 's')
  charges[i] = {
    cost = cost, fits = fits, remaining = remaining, reset = reset, wait = wait, changed = changed,
    value = value, entry = entry, places = places, lease = lease,
  }
end

-- Then it charges.
results = { KIND, admitted and 1 or 0, now }
for i, c in ipairs(charges) do
  if admitted and c.fits and not peek then
    c.remaining = math.max(c.remaining - c.cost, 0)
    c.changed = c.changed or c.cost > 0
    if c.lease then
      part.places.take(c.places, by, c.cost, now + c.lease)
    else
      local u = c.entry[1]
      c.changed = c.changed or #c.entry > 1
      algorithms[u.kind].take(u, now, c.cost)
      spread(c.entry, now, now, c.cost)
      if c.reset == 0 and c.cost > 0 then
        c.reset = algorithms[u.kind].first(u) -- nothing was in use before
      end
    end
  end
  local at = 3 + (i - 1) * RESULTS
  results[at + 1], results[at + 2] = c.fits and 0 or 1, c.remaining
  results[at + 3], results[at + 4] = c.reset, c.wait
end

if peek then
  return results
end

-- It writes last, so that a fault changes nothing.
remember(KEYS[n + 1], results)
for i, c in ipairs(charges) do
  if c.changed and c.entry then
    keep(KEYS[i], c.value, packEntry(c.entry), over(c.entry), now, ARGV[1])
  elseif c.changed then
    part.places.write(c.places, now, ARGV[1])
  end
end
return results
