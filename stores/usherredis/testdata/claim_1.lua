-- The first part of every script.

-- The present time in microseconds since 1970. A double holds it exactly until the year
-- 2255. A test may set the time with an argument.
local function clock(set)
  if set ~= '' then
    return tonumber(set)
  end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- The text of a whole number for a command of Redis: tostring rounds to 14 digits.
local function digits(n)
  return string.format('%.0f', n)
end

-- Reports whether n is a whole number that a double holds exactly. NaN is not.
local LARGEST = 2 ^ 53
local function whole(n)
  return type(n) == 'number' and n >= 0 and n <= LARGEST and n % 1 == 0
end
-- A record is one string: a header of fixed length, and the payload.
--
--   version, state     1 byte each; the states are the numbers of package idempotency
--   token              16 bytes
--   fingerprint        32 bytes
--   generation         8 bytes
--   lease              8 bytes: the instant at which it ends
--   status             4 bytes
--   payload            its length in 4 bytes, and its bytes
--
-- Redis drops a record when it expires, so the record does not contain that instant.
local HEADER = '>BBc16c32I8I8I4I4'
local LENGTH = 74
local LEASE_AT = 58 -- the offset of the lease, from 0
local VERSION = 1
local CLAIMED, DONE, RELEASED, UNKNOWN = 1, 2, 4, 5

local function write(r)
  return struct.pack(HEADER, VERSION, r.state, r.token, r.fingerprint, r.generation,
    r.lease, r.status, #r.payload) .. r.payload
end

-- Returns the record at a key, nil if there is none, or nil and an error reply if the value
-- is not a record. The payload stays in r.value, so that it is not copied.
local function read(key)
  local value = redis.pcall('GET', key)
  if not value then
    return nil
  end
  if type(value) == 'table' then
    return nil, value -- the error, for instance WRONGTYPE
  end
  if #value < LENGTH or string.byte(value) ~= VERSION then
    return nil, redis.error_reply('CORRUPT record')
  end
  local r, size = { value = value }, nil
  local _
  _, r.state, r.token, r.fingerprint, r.generation, r.lease, r.status, size = struct.unpack(HEADER, value)
  local empty = size == 0 or r.state == DONE
  if r.state < CLAIMED or r.state > UNKNOWN or not empty or #value ~= LENGTH + size then
    return nil, redis.error_reply('CORRUPT record')
  end
  return r
end

-- The milliseconds for which a record is kept: at least ttl microseconds.
local function milliseconds(ttl)
  return math.max(math.ceil(ttl / 1000), 1)
end
-- Claims the key of a record.
--
-- KEYS   the record
-- ARGV   the present time or '', token, fingerprint, lease, TTL; both in microseconds
--
-- Returns whether the claim is won, the rest of its lease, and the record. Returns LOST to
-- a token that has released the key.
local now = clock(ARGV[1])
local token, fingerprint = ARGV[2], ARGV[3]
local lease, ttl = tonumber(ARGV[4]), tonumber(ARGV[5])

local r, fault = read(KEYS[1])
if fault then
  return fault
end

local keep = milliseconds(ttl)
local generation = now
if r then
  local mine = r.token == token
  if r.state == RELEASED and mine then
    return redis.error_reply('LOST claim')
  end
  if r.state ~= CLAIMED and r.state ~= RELEASED then
    return { 0, 0, r.value }
  end
  if r.state == CLAIMED and mine then
    -- A repeated call: it is the same claim, and its lease starts again.
    keep = math.max(keep, redis.call('PTTL', KEYS[1]))
    generation, fingerprint = r.generation, r.fingerprint
  elseif r.state == CLAIMED and r.lease > now then
    return { 0, r.lease - now, r.value }
  else
    generation = math.max(r.generation + 1, now)
  end
end

local value = write({ state = CLAIMED, token = token, fingerprint = fingerprint,
  generation = generation, lease = now + lease, status = 0, payload = '' })
redis.call('SET', KEYS[1], value, 'PX', digits(keep))
return { 1, lease, value }
