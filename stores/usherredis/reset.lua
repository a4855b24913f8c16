-- Forgets what keys have used. What decisions hold stays.
--
-- KEYS   what is stored for each key
-- ARGV   the present time or ''
local now = clock(ARGV[1])
for _, key in ipairs(KEYS) do
  local value, fault = get(key, 0)
  if fault and not string.find(fault.err, 'CORRUPT', 1, true) then
    return fault
  end
  local list = value and decode(value)
  local holds = unpackHolds(list)
  if holds then
    -- Nothing grows, so this script may run when the memory is full.
    keep(key, value, cmsgpack.pack({ WITH_HOLDS, part.places.pack(holds) }), holds.last, now, ARGV[1])
  elseif value or fault then
    redis.call('DEL', key)
  end
end
return redis.status_reply('OK')
