-- Deletes a record.
--
-- KEYS   the record
-- ARGV   the present time or '', and the generation in 8 bytes: 0 for a record that cannot
--        be read
--
-- Returns NONE if the key is free, and LOST if the record has another generation or is a
-- claim whose lease has not ended.
local now = clock(ARGV[1])
local generation = struct.unpack('>I8', ARGV[2])
local r, fault = read(KEYS[1])
if fault then
  local unreadable = string.find(fault.err, 'CORRUPT', 1, true) or string.find(fault.err, 'WRONGTYPE', 1, true)
  if generation ~= 0 or not unreadable then
    return fault
  end
else
  if not r or r.state == RELEASED then
    return redis.error_reply('NONE record')
  end
  if r.generation ~= generation or (r.state == CLAIMED and r.lease > now) then
    return redis.error_reply('LOST record')
  end
end
redis.call('DEL', KEYS[1])
return redis.status_reply('OK')
