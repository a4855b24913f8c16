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

-- A process often renews many places of one key, whose rows are read and written once.
local wanted = {} -- by key: the IDs of the decisions
for i, key in ipairs(KEYS) do
  wanted[key] = wanted[key] or {}
  wanted[key][ARGV[i + 2]] = true
end

local found = {} -- by key: the IDs of those that have places
for key, decisions in pairs(wanted) do
  local value = get(key, 0)
  local p = value and places(value)
  found[key] = {}
  if p then
    free(p, now)
    found[key] = renew(p, decisions, ends)
    if next(found[key]) then
      -- Nothing grows, so this script may run when the memory is full.
      keep(key, value, stored(p), p.last, now, ARGV[1])
    end
  end
end

local renewed = {}
for i, key in ipairs(KEYS) do
  renewed[i] = found[key][ARGV[i + 2]] and 1 or 0
end
return renewed
