-- A record is one string: a header of fixed length, and the payload.
--
--   version, state     1 byte each; the states are the numbers of package idempotency
--   token              16 bytes
--   fingerprint        32 bytes
--   generation         8 bytes
--   lease              8 bytes: the instant at which it ends
--   status             4 bytes; of a claimed record, which has no response, TAKEN_OVER if
--                      the claim was taken over, and otherwise 0
--   payload            its length in 4 bytes, and its bytes
--
-- Redis drops a record when it expires, so the record does not contain that instant.
local HEADER = '>BBc16c32I8I8I4I4'
local LENGTH = 74
local LEASE_AT = 58 -- the offset of the lease, from 0
local VERSION = 1
local CLAIMED, DONE, RELEASED, UNKNOWN = 1, 2, 4, 5
local TAKEN_OVER = 1

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
  if r.state < CLAIMED or r.state > UNKNOWN or not empty or #value ~= LENGTH + size
    or (r.state == CLAIMED and r.status > TAKEN_OVER) then
    return nil, redis.error_reply('CORRUPT record')
  end
  return r
end

-- The milliseconds for which a record is kept: at least ttl microseconds.
local function milliseconds(ttl)
  return math.max(math.ceil(ttl / 1000), 1)
end
