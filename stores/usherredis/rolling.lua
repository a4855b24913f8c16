-- Rolling window.
--
-- The state is a stamp for each request that still counts, oldest first, and the sum of
-- their costs. Stamps are a string, from which a decision usually reads the first few and
-- to which it appends one: it takes 12 bytes and little time for each.
function make.r()
  local rolling = {}
  local STAMP, SIZE = '>I8I4', 12 -- the instant, the cost

  local function count(u)
    return #u.stamps / SIZE
  end

  -- Returns the instant and the cost of the i-th oldest stamp.
  local function stamp(u, i)
    return struct.unpack(STAMP, u.stamps, (i - 1) * SIZE + 1)
  end

  -- Replaces the stamps after the first i, up to the one before the j-th, with others.
  local function splice(u, i, j, others)
    u.stamps = string.sub(u.stamps, 1, i * SIZE) .. others .. string.sub(u.stamps, (j - 1) * SIZE + 1)
  end

  -- Adds a cost at an instant, which is nearly always the newest one.
  local function add(u, at, cost)
    u.used = u.used + cost
    local i = count(u)
    while i > 0 do
      local there, already = stamp(u, i)
      if there == at then
        return splice(u, i - 1, i + 1, struct.pack(STAMP, at, already + cost))
      end
      if there < at then
        break
      end
      i = i - 1
    end
    splice(u, i, i + 1, struct.pack(STAMP, at, cost))
  end

  -- Removes up to cost units from the stamp of an instant, and returns how many.
  local function remove(u, at, cost)
    local i = count(u)
    local there, already
    while i > 0 do
      there, already = stamp(u, i)
      if there <= at then
        break
      end
      i = i - 1
    end
    if i == 0 or there ~= at then
      return 0
    end
    local given = math.min(cost, already)
    u.used = u.used - given
    local rest = given < already and struct.pack(STAMP, at, already - given) or ''
    splice(u, i - 1, i + 1, rest)
    return given
  end

  -- Drops the stamps that no longer count. A request counts for the whole length of the
  -- window and not a microsecond longer.
  local function expire(u, now)
    local n, i = count(u), 1
    while i <= n do
      local at, cost = stamp(u, i)
      if now - at < u.per then
        break
      end
      u.used = u.used - cost
      i = i + 1
    end
    if i > 1 then
      splice(u, 0, i, '')
    end
  end

  function rolling.start(u, now, debts)
    u.used, u.stamps = 0, ''
    -- A debt counts as a whole until its last unit expires, so never too little counts. A
    -- debt that ends later is part of a greater one.
    table.sort(debts, function(a, b) return a.ends > b.ends end)
    for _, d in ipairs(debts) do
      local more = math.min(d.used, u.quota) - u.used
      if more > 0 then
        add(u, math.min(d.ends - u.per, now), more)
      end
    end
  end

  function rolling.check(u, now, need)
    expire(u, now)
    local n, remaining, reset = count(u), math.max(u.quota - u.used, 0), 0
    if n > 0 then
      reset = stamp(u, 1) + u.per - now
    end
    if need == 0 or u.used + need <= u.quota then
      return true, remaining, reset, 0
    end
    if need > u.quota then
      return false, remaining, reset, NEVER
    end
    -- The oldest stamps expire first. Each has a cost of at least one, so this loop reads no
    -- more stamps than the request costs.
    local excess, i, wait = u.used + need - u.quota, 1, 0
    while i <= n and excess > 0 do
      local at, cost = stamp(u, i)
      excess, wait, i = excess - cost, at + u.per - now, i + 1
    end
    return false, remaining, reset, wait
  end

  function rolling.take(u, now, cost)
    if cost > 0 then
      add(u, now, cost)
    end
  end

  function rolling.adjust(u, now, at, cost)
    expire(u, now)
    if cost < 0 then
      return -remove(u, at, -cost)
    end
    local moved = math.min(cost, math.max(u.quota - u.used, 0))
    if moved > 0 then
      -- These units are added to the original charge, where a refund finds them; but if
      -- that charge has expired, they would not count.
      if at > now or now - at >= u.per then
        at = now
      end
      add(u, at, moved)
    end
    return moved
  end

  function rolling.debt(u, now)
    expire(u, now)
    return u.used, rolling.ends(u)
  end

  function rolling.ends(u)
    local n = count(u)
    return n > 0 and stamp(u, n) + u.per or 0
  end

  function rolling.first(u)
    return u.per
  end

  function rolling.pack(u)
    return u.used, u.stamps
  end

  function rolling.unpack(u, list, now)
    u.used, u.stamps = list[3], list[4]
    if not (whole(u.used) and type(u.stamps) == 'string' and count(u) % 1 == 0) then
      return false
    end
    -- If the clock was set back, stamps of the future count from now.
    local i, future = count(u), 0
    while i > 0 do
      local at, cost = stamp(u, i)
      if at <= now then
        break
      end
      future, i = future + cost, i - 1
    end
    if future > 0 then
      u.changed = true
      splice(u, i, count(u) + 1, '')
      u.used = u.used - future
      add(u, now, future)
    end
    return true
  end

  return rolling
end
