-- Starts the leases of places again.
--
-- KEYS   the places
-- ARGV   the present time or '', lease in microseconds, and for each key the ID of the
--        decision that has taken the places
--
-- Returns for each key 1 if its places are renewed, and 0 if they are lost: the decision has
-- none, or they cannot be read.
local now = clock(ARGV[1])
local ends = now + tonumber(ARGV[2])

local renewed = {}
for i, key in ipairs(KEYS) do
  local value, fault = get(key, i)
  local p = not fault and places(value)
  if p then
    free(p, now)
  end
  if p and renew(p, ARGV[i + 2], ends) then
    -- Nothing grows, so this script may run when the memory is full.
    keep(key, value, stored(p), p.last, now, ARGV[1])
    renewed[i] = 1
  else
    renewed[i] = 0
  end
end
return renewed
