-- A key and what it has used: see usage.lua. A key usually has one limit. When its plan
-- changes, or when it has several limits at a time, each has a usage of its own, and what
-- is charged under one counts under all: the end of a short window does not change what a
-- longer one counts.
--
-- An entry is a list of usages, the present one first, with the fields
--
--   holds     the units that decisions hold, or nil
--   changed   whether it must be stored although nothing was charged
--
-- It is stored as a list in MessagePack, which keeps whole numbers exact, and each usage as
-- {limit, missed, state, ...}. Redis drops it when none of its usages counts any more and no
-- units are held.
local MOST_OTHERS = 3

local function debt(u, now)
  return algorithms[u.kind].debt(u, now)
end

-- Returns the entry in a stored value, or nil if the value cannot be an entry.
local function unpackEntry(value, now)
  local list = decode(value)
  local ok, e = nil, {}
  ok, e.holds = unpackHolds(list)
  if not ok then
    return nil
  end
  local first = e.holds and 3 or 2
  if #list > first + MOST_OTHERS or not e.holds and #list < first then
    return nil
  end
  for i = first, #list do
    local stored = list[i]
    local u = type(stored) == 'table' and type(stored[1]) == 'string' and limit(stored[1])
    if not u or not whole(stored[2]) or not algorithms[u.kind].unpack(u, stored, now) then
      return nil
    end
    u.missed = stored[2]
    table.insert(e, u)
  end
  if e.holds then
    free(e.holds, now)
  end
  return e
end

local function packEntry(e)
  local list = { WITHOUT_HOLDS }
  if e.holds and e.holds.used > 0 then
    list = { WITH_HOLDS, packPlaces(e.holds) }
  end
  for _, u in ipairs(e) do
    list[#list + 1] = { u.text, u.missed, algorithms[u.kind].pack(u) }
  end
  return cmsgpack.pack(list)
end

-- The instant from which an entry makes no difference.
local function over(e)
  local last = e.holds and e.holds.used > 0 and e.holds.last or 0
  for _, u in ipairs(e) do
    last = math.max(last, algorithms[u.kind].ends(u))
  end
  return last
end

-- Reports whether debt a must be kept rather than debt b, which records the same use.
local function greater(a, b)
  if a.used ~= b.used then
    return a.used > b.used
  end
  return a.ends > b.ends
end

-- Makes the usage under the limit of u the present one of an entry. A new limit starts with
-- the debts under all the others, one of which may be dropped.
local function change(e, u, now)
  for i, known in ipairs(e) do
    if known.text == u.text then
      known.windows = u.windows
      e[1], e[i] = known, e[1]
      e.changed = i > 1
      return
    end
  end
  -- In the order in which a Memory keeps them: the others, then the usage that was the
  -- present one.
  local others, debts = {}, {}
  for i = 2, #e + 1 do
    local known = e[i] or e[1]
    local used, ends = 0, 0
    if known then
      used, ends = debt(known, now)
    end
    if ends > now then
      table.insert(others, known)
      table.insert(debts, { used = used, ends = ends, of = #others })
    end
  end
  if #others > MOST_OTHERS then
    -- The usage that ends first matters least.
    local first = debts[1]
    for _, d in ipairs(debts) do
      if d.ends < first.ends then
        first = d
      end
    end
    table.remove(others, first.of)
  end
  table.sort(debts, greater)
  algorithms[u.kind].start(u, now, debts)
  for i = 1, MOST_OTHERS + 1 do
    e[i] = i == 1 and u or others[i - 1]
  end
  e.changed = true
end

-- Charges the other limits with the cost that was charged under the present one. It drops a
-- calendar window if neither it nor the next one contains the present time.
local function spread(e, now, at, cost)
  for i = #e, 2, -1 do
    if e[i].kind == 'c' and now >= e[i].next then
      table.remove(e, i)
    end
  end
  for i = 2, #e do
    local u, rest = e[i], cost
    if rest < 0 then
      local untaken = math.min(-rest, u.missed)
      u.missed, rest = u.missed - untaken, rest + untaken
    end
    local moved = algorithms[u.kind].adjust(u, now, at, rest)
    if rest > 0 then
      u.missed = u.missed + rest - moved
    end
  end
end

-- Reports whether the clocks of the caller and of the server are too far apart: neither
-- window that the caller has given contains the present time, nor does a window that has
-- begun.
local function apart(e, u, now)
  if not u.windows or now < u.windows[2] then
    return false
  end
  for _, known in ipairs(e) do
    if known.text == u.text then
      return now >= known.ends
    end
  end
  return true
end

-- Returns the entry in a stored value, with the usage under a limit as the present one. The
-- windows are those of a calendar window. Returns nil and an error for the i-th charge.
local function enter(i, value, text, windows, now)
  local e, u = {}, limit(text)
  if value then
    e = unpackEntry(value, now)
  end
  if not e then
    return nil, redis.error_reply('CORRUPT ' .. i)
  end
  if not u then
    return nil, redis.error_reply('LIMIT ' .. i)
  end
  u.windows = windows
  if apart(e, u, now) then
    return nil, redis.error_reply('APART ' .. i)
  end
  change(e, u, now)
  return e
end
