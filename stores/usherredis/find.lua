-- Finds a record, and changes nothing.
--
-- KEYS   the record
-- ARGV   the present time or ''
--
-- Returns the rest of its lease in microseconds, the rest of its TTL in milliseconds, and the
-- record. Returns NONE if the key is free.
local now = clock(ARGV[1])
local r, fault = read(KEYS[1])
if fault then
  return fault
end
if not r or r.state == RELEASED then
  return redis.error_reply('NONE record')
end
return { r.state == CLAIMED and r.lease - now or 0, redis.call('PTTL', KEYS[1]), r.value }
