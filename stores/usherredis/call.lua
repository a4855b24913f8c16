-- Returns the value of a key, or nil and an error for the i-th charge.
local function get(key, i)
  local value = redis.pcall('GET', key)
  if type(value) ~= 'table' then
    return value
  end
  if string.find(value.err, 'WRONGTYPE', 1, true) then
    return nil, redis.error_reply('CORRUPT ' .. i)
  end
  return nil, value -- for instance NOPERM
end

-- Returns the list in a stored value, or nil if the value is none.
local function decode(value)
  local ok, list, more = pcall(cmsgpack.unpack, value)
  return ok and more == nil and type(list) == 'table' and list or nil
end

-- The results of recent calls. A call that is repeated because its reply was lost gets the
-- same results, and is charged once. They have a key of their own, which Redis drops after
-- five seconds.
local REPEATABLE = 5000 -- milliseconds

-- Returns the results of the same call: its kind, and n numbers. Returns an error if the
-- stored results cannot be those of the call.
local function recall(key, kind, n)
  local value, fault = get(key, 0)
  if not value then
    return nil, fault
  end
  local list = decode(value)
  if not list then
    return nil, redis.error_reply('CORRUPT 0')
  end
  for _, v in ipairs(list) do
    if type(v) ~= 'number' or v % 1 ~= 0 then
      return nil, redis.error_reply('CORRUPT 0')
    end
  end
  if list[1] ~= kind or #list ~= n + 1 then
    return nil, redis.error_reply('REUSED id')
  end
  return list
end

-- Keeps the results of a call. This is the first write of each script: if Redis permits no
-- write now, it fails, and nothing has changed.
local function remember(key, results)
  redis.call('SET', key, cmsgpack.pack(results), 'PX', REPEATABLE)
end

-- The time to live of a value that makes no difference after this time.
local function lifetime(micros)
  return digits(math.ceil(micros / 1000) + 1)
end

-- Keeps a value until the instant ends, after which it makes no difference. While a test
-- sets the clock, Redis does not know when that is, and keeps the value.
local function keep(key, existed, value, ends, now, set)
  if set ~= '' then
    redis.call('SET', key, value)
  elseif ends > now then
    redis.call('SET', key, value, 'PX', lifetime(ends - now))
  elseif existed then
    redis.call('DEL', key)
  end
end
