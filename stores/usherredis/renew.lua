-- Starts the leases of places and of holds again.
--
-- KEYS   two for each lease: the places of the key, and what the key has used and holds
-- ARGV   the present time or '', lease in microseconds, and for each lease the ID of the
--        decision that has taken the places or holds the units
--
-- Returns for each lease 1 if it has started again, and 0 if it is lost: the decision has
-- neither places nor units, or they cannot be read.
local now = clock(ARGV[1])
local ends = now + tonumber(ARGV[2])

-- A process often renews many leases of one key, whose rows are read and written once.
local wanted, used = {}, {} -- by the key of the places: the IDs of the decisions, the other key
for i = 1, #KEYS, 2 do
  local key = KEYS[i]
  wanted[key], used[key] = wanted[key] or {}, KEYS[i + 1]
  wanted[key][ARGV[(i + 1) / 2 + 2]] = true
end

-- In both cases nothing grows, so this script may run when the memory is full.
local function renewPlaces(key, decisions)
  local p = part.places.read(key, 0, now)
  local found = p and part.places.renew(p, decisions, ends) or {}
  if next(found) then
    part.places.write(p, now, ARGV[1])
  end
  return found
end

local function renewHolds(key, decisions)
  local value = get(key, 0)
  local list = value and decode(value)
  local holds = unpackHolds(list)
  if not holds then
    return {}
  end
  part.places.free(holds, now)
  local found = part.places.renew(holds, decisions, ends)
  if next(found) then
    list[2] = part.places.pack(holds)
    redis.call('SET', key, cmsgpack.pack(list), 'KEEPTTL')
    redis.call('PEXPIRE', key, lifetime(ends - now), 'GT')
  end
  return found
end

local renewed = {}
for key, decisions in pairs(wanted) do
  renewed[key] = renewPlaces(key, decisions)
  local others = {}
  for by in pairs(decisions) do
    others[by] = not renewed[key][by] or nil
  end
  if next(others) then
    for by in pairs(renewHolds(used[key], others)) do
      renewed[key][by] = true
    end
  end
end

local results = {}
for i = 1, #KEYS, 2 do
  local n = (i + 1) / 2
  results[n] = renewed[KEYS[i]][ARGV[n + 2]] and 1 or 0
end
return results
