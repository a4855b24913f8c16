-- Calendar window.
--
-- The state is the units used in the present window, the instant at which the key first
-- used it, its end, and the end of the next one. The latter is stored because nobody passes
-- the windows of this limit while the key is used under other limits. If the next window is
-- unknown, its end is that of the present one.
function make.c()
  local calendar = {}

  -- Begins the window that contains now. The caller has checked that it is known.
  local function open(u, now)
    local w = u.windows
    if not w then
      u.ends = u.next
    elseif now < w[1] then
      u.ends, u.next = w[1], w[2]
    else
      u.ends, u.next = w[2], w[2]
    end
    u.opened, u.used = now, 0
  end

  -- Begins the next window once the present one has ended. If the clock was set back, the
  -- window of the caller takes the place of a later one, and keeps its use.
  local function turn(u, now)
    local w = u.windows
    if now >= u.ends then
      open(u, now)
      u.changed = true
    elseif w and now < w[1] and w[1] < u.ends then
      u.ends, u.next = w[1], w[2]
      u.opened = math.min(u.opened, now)
      u.changed = true
    end
  end

  function calendar.start(u, now, debts)
    open(u, now)
    if debts[1] then
      u.used = math.min(debts[1].used, u.quota)
    end
  end

  function calendar.check(u, now, need)
    turn(u, now)
    local left, remaining = math.max(u.ends - now, 0), math.max(u.quota - u.used, 0)
    if need == 0 or u.used + need <= u.quota then
      return true, remaining, left, 0
    end
    return false, remaining, left, need > u.quota and NEVER or left
  end

  function calendar.take(u, _, cost)
    u.used = u.used + cost
  end

  function calendar.adjust(u, now, at, cost)
    turn(u, now)
    local moved = 0
    if cost > 0 then
      moved = math.min(cost, math.max(u.quota - u.used, 0))
    elseif at >= u.opened then
      moved = math.max(cost, -u.used)
    end
    u.used = u.used + moved
    return moved
  end

  function calendar.debt(u)
    return u.used, u.ends
  end

  function calendar.ends(u)
    return u.ends
  end

  function calendar.first()
    return 0 -- check has returned the time until the window ends
  end

  function calendar.pack(u)
    return u.used, u.opened, u.ends, u.next
  end

  function calendar.unpack(u, list)
    u.used, u.opened, u.ends, u.next = list[3], list[4], list[5], list[6]
    return whole(u.used) and whole(u.opened) and whole(u.ends) and whole(u.next) and u.next >= u.ends
  end

  return calendar
end
