-- The places of a key under concurrency limits: for each decision the places that it has
-- taken, and the end of their lease. They are counted apart from what the key uses under
-- limits of other algorithms. What decisions hold of that is counted in the same way: see
-- holds.lua.
--
-- Places are stored as the list {version, used, first, last, rows} in MessagePack: used is
-- their number, no lease ends before first, all leases have ended at last, and rows is a
-- string with a row for each decision. So a decision usually reads no row.
function make.places()
  local places = {}
  local VERSION = 1
  local ROW, ROW_SIZE = '>c16I4I8', 28 -- the ID of the decision, places, the end of the lease
  local ID_SIZE = 16

  function places.none()
    return { used = 0, first = 0, last = 0, rows = '' }
  end

  -- Returns the places in a stored list, or nil if the list cannot be places.
  function places.unpack(list)
    if type(list) ~= 'table' or #list ~= 5 or list[1] ~= VERSION
      or not (whole(list[2]) and whole(list[3]) and whole(list[4]))
      or type(list[5]) ~= 'string' or #list[5] % ROW_SIZE ~= 0 then
      return nil
    end
    return { used = list[2], first = list[3], last = list[4], rows = list[5] }
  end

  function places.pack(p)
    return { VERSION, p.used, p.first, p.last, p.rows }
  end

  -- Frees the places whose lease has ended.
  function places.free(p, now)
    if now < p.first then
      return
    end
    local used, first, left = 0, nil, {}
    for at = 1, #p.rows, ROW_SIZE do
      local _, n, ends = struct.unpack(ROW, p.rows, at)
      if ends > now then
        used, first = used + n, math.min(first or ends, ends)
        table.insert(left, string.sub(p.rows, at, at + ROW_SIZE - 1))
      end
    end
    p.used, p.first, p.rows = used, first or 0, table.concat(left)
  end

  -- Returns the places that are stored at a key, without those whose lease has ended, or nil
  -- and an error for the i-th charge.
  function places.read(key, i, now)
    local value, fault = get(key, i)
    if fault then
      return nil, fault
    end
    local p = places.none()
    if value then
      p = places.unpack(decode(value))
      if not p then
        return nil, redis.error_reply('CORRUPT ' .. i)
      end
      places.free(p, now)
    end
    p.key, p.existed = key, value
    return p
  end

  -- Keeps places until all leases have ended.
  function places.write(p, now, set)
    keep(p.key, p.existed, cmsgpack.pack(places.pack(p)), p.used > 0 and p.last or 0, now, set)
  end

  -- Returns the position of the row of a decision, the number of its places, and the end of
  -- their lease, or nil if the decision has no places.
  local function find(p, by)
    local at = string.find(p.rows, by, 1, true)
    while at and at % ROW_SIZE ~= 1 do
      at = string.find(p.rows, by, at + 1, true)
    end
    if not at then
      return nil
    end
    return at, struct.unpack('>I4I8', p.rows, at + ID_SIZE)
  end

  -- Replaces the row at a position, or adds one at the end. A row without places is removed.
  local function put(p, at, by, n, ends)
    local row = n > 0 and struct.pack(ROW, by, n, ends) or ''
    p.rows = string.sub(p.rows, 1, at - 1) .. row .. string.sub(p.rows, at + ROW_SIZE)
  end

  -- Starts a lease until this instant.
  local function begin(p, ends)
    p.first = p.first == 0 and ends or math.min(p.first, ends)
    p.last = math.max(p.last, ends)
  end

  -- Takes n places for a decision.
  function places.take(p, by, n, ends)
    if n > 0 then
      put(p, #p.rows + 1, by, n, ends)
      begin(p, ends)
      p.used = p.used + n
    end
  end

  -- Takes up to n more places for a decision that has places, or frees up to -n of its own.
  -- Returns how many it has moved: none for a decision without places.
  function places.adjust(p, quota, by, n)
    local at, own, ends = find(p, by)
    if not at then
      return 0
    end
    local moved = math.max(math.min(n, math.max(quota - p.used, 0)), -own)
    put(p, at, by, own + moved, ends)
    p.used = p.used + moved
    return moved
  end

  -- Starts the leases of decisions again: of those whose IDs are keys of a table. Returns a
  -- table whose keys are the IDs of those that have places. It reads each row once, however
  -- many leases start again: a process renews all places of a key in one call.
  function places.renew(p, decisions, ends)
    local found, rows = {}, {}
    for at = 1, #p.rows, ROW_SIZE do
      local row = string.sub(p.rows, at, at + ROW_SIZE - 1)
      local by, n = struct.unpack('>c16I4', row)
      if decisions[by] then
        found[by] = true
        row = struct.pack(ROW, by, n, ends)
      end
      table.insert(rows, row)
    end
    if next(found) then
      p.rows = table.concat(rows)
      begin(p, ends)
    end
    return found
  end

  return places
end
