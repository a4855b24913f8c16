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
-- Ends the claim of a record.
--
-- KEYS   the record
-- ARGV   token, state, status, TTL in microseconds, payload
--
-- Returns the state that the record has now. Returns LOST if the key does not belong to
-- this token.
local token, state, status = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local ttl, payload = tonumber(ARGV[4]), ARGV[5]

local r, fault = read(KEYS[1])
if fault then
  return fault
end
if not r or r.token ~= token then
  return redis.error_reply('LOST claim')
end
if r.state ~= CLAIMED then
  return r.state -- The same call again, or another that has ended the claim.
end

r.state, r.status, r.payload = state, status, payload
redis.call('SET', KEYS[1], write(r), 'PX', digits(milliseconds(ttl)))
return state
