-- Token bucket (GCRA).
--
-- The state is the instant at which the bucket is full: full + part/quota microseconds,
-- where 0 <= part < quota. So are all times here: a whole number and a part. While more than
-- the burst is missing, because the bucket was overdrawn, the state also has the instant of
-- the last adjustment.
function make.b()
  local bucket = {}
  -- No key has used more than it earns in this time: ten times the longest period.
  local LONGEST = 36600 * 86400 * 10 ^ 6

  -- The time in which these units are earned: units * per / quota.
  local function span(u, units)
    local product = units * u.per
    if product <= LARGEST then
      local p = product % u.quota
      return (product - p) / u.quota, p
    end
    local quotient, rest = math.floor(u.per / u.quota), u.per % u.quota
    -- units * rest may exceed 2^53 too, so units is divided by 2^15 first.
    local high, low = math.floor(units / 32768), units % 32768
    product = high * rest
    local w, p = math.floor(product / u.quota), product % u.quota
    product = p * 32768 + low * rest
    return units * quotient + w * 32768 + math.floor(product / u.quota), product % u.quota
  end

  -- The whole microseconds that are not less than this time.
  local function ceil(u, w, p)
    return w + math.ceil(p / u.quota)
  end

  -- The time until the bucket is full.
  local function missing(u, now)
    if u.full < now then
      return 0, 0
    end
    return u.full - now, u.part
  end

  -- Reports whether n units take at least this time to earn.
  local function enough(u, n, w, p)
    local sw, sp = span(u, n)
    return sw > w or sw == w and sp >= p
  end

  -- The units that are in use if this time is missing, or most if there are more: the least
  -- number that takes as long to earn. A unit that is partly earned again counts as used.
  local function units(u, w, p, most)
    if w == 0 and p == 0 then
      return 0
    end
    local n = math.min(math.ceil((w + p / u.quota) / u.per * u.quota), most)
    -- n may be off by one, since it was computed with fractions.
    while n > 0 and enough(u, n - 1, w, p) do
      n = n - 1
    end
    while n < most and not enough(u, n, w, p) do
      n = n + 1
    end
    return n
  end

  -- Moves the instant at which the bucket is full on by n units, or back if n is negative.
  local function move(u, now, n)
    local w, p = missing(u, now)
    local sw, sp = span(u, math.abs(n))
    if n < 0 then
      sw, sp = -sw, -sp
    end
    w, p = w + sw, p + sp
    u.full, u.part = now + w + math.floor(p / u.quota), p % u.quota
    if u.full < now then
      u.full, u.part = now, 0
    end
  end

  function bucket.start(u, now, debts)
    u.full, u.part = now, 0
    if debts[1] then
      move(u, now, math.min(debts[1].used, u.burst))
    end
  end

  function bucket.check(u, now, need)
    local w, p = missing(u, now)
    local used = units(u, w, p, u.burst)
    local remaining, reset = u.burst - used, 0
    if used > 0 then
      local sw, sp = span(u, used - 1)
      reset = ceil(u, w - sw, p - sp)
    end
    if need == 0 then
      return true, remaining, reset, 0
    end
    if need > u.burst then
      return false, remaining, reset, NEVER
    end
    local nw, np = span(u, need)
    local bw, bp = span(u, u.burst)
    local over = ceil(u, w + nw - bw, p + np - bp)
    return over <= 0, remaining, reset, math.max(over, 0)
  end

  function bucket.take(u, now, cost)
    if u.moved and cost > 0 then
      u.moved = nil -- it fits, so at most the burst is missing
    end
    move(u, now, cost)
  end

  -- The most units that may be in use at a time.
  local function most(u)
    local n = units(u, LONGEST, 0, MOST_UNITS)
    return enough(u, n, LONGEST, 1) and n - 1 or n
  end

  function bucket.adjust(u, now, _, cost, overdraw)
    local w, p = missing(u, now)
    local used = units(u, w, p, MOST_UNITS)
    local left = math.max((overdraw and most(u) or u.burst) - used, 0)
    local moved = math.max(math.min(cost, left), -used)
    move(u, now, moved)
    w, p = missing(u, now)
    u.moved = not enough(u, u.burst, w, p) and now or nil
    return moved
  end

  function bucket.debt(u, now)
    local w, p = missing(u, now)
    return units(u, w, p, MOST_UNITS), bucket.ends(u)
  end

  function bucket.ends(u)
    return ceil(u, u.full, u.part)
  end

  function bucket.first(u)
    return ceil(u, span(u, 1))
  end

  function bucket.pack(u)
    return u.full, u.part, u.moved
  end

  function bucket.unpack(u, list, now)
    u.full, u.part = list[3], list[4]
    if not (whole(u.full) and whole(u.part) and u.part < u.quota) then
      return false
    end
    -- If the clock was set back, no more is missing than the burst, or than the last adjustment
    -- has left.
    local sw, sp, moved = nil, u.part, list[5]
    if not moved then
      sw, sp = span(u, u.burst)
    elseif whole(moved) and moved <= u.full then
      sw, u.moved = u.full - moved, moved
    else
      return false
    end
    if u.full > now + sw then
      u.full, u.part, u.changed = now + sw, sp, true
      u.moved = moved and now
    end
    return true
  end

  return bucket
end
