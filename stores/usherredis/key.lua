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
-- {limit, missed, state, ...}. Redis drops it when none of its usages counts any more and all
-- holds have ended.
local MOST_OTHERS = 3

local function debt(u, now)
  return algorithms[u.kind].debt(u, now)
end

-- Returns the entry in a stored value, or nil if the value cannot be an entry. The usage
-- under the limit of u is u.
local function unpackEntry(value, u, now)
  local list = decode(value)
  local e, holds = {}, 0
  if not list or list[1] ~= WITHOUT_HOLDS then
    e.holds, holds = unpackHolds(list), 1
    if not e.holds then
      return nil
    end
    part.places.free(e.holds, now)
  end
  local n = #list - 1 - holds
  if n > MOST_OTHERS + 1 or n + holds < 1 then
    return nil
  end
  for i = 1, n do
    local stored, known = list[i + 1 + holds], u
    if type(stored) ~= 'table' or type(stored[1]) ~= 'string' then
      return nil
    end
    if not u or stored[1] ~= u.text then
      known = limit(stored[1])
    end
    if not known or not whole(stored[2]) or not algorithms[known.kind].unpack(known, stored, now) then
      return nil
    end
    known.missed = stored[2]
    e[i] = known
  end
  return e
end

local function packEntry(e)
  local list, n = { WITHOUT_HOLDS }, 1
  if e.holds and e.holds.used > 0 then
    list, n = { WITH_HOLDS, part.places.pack(e.holds) }, 2
  end
  for i, u in ipairs(e) do
    list[n + i] = { u.text, u.missed, algorithms[u.kind].pack(u) }
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
    if known == u then
      if i > 1 then
        e[1], e[i], e.changed = known, e[1], true
      end
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
    if known == u then
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
    e = unpackEntry(value, u, now)
  end
  if not e then
    return nil, redis.error_reply('CORRUPT ' .. i)
  end
  if not u then
    return nil, redis.error_reply('LIMIT ' .. i)
  end
  if windows then
    u.windows = windows
  end
  if apart(e, u, now) then
    return nil, redis.error_reply('APART ' .. i)
  end
  change(e, u, now)
  return e
end
