-- The units of a key that decisions hold, so that no other decision may use them. They are
-- stored with what the key has used, so that a decision that holds nothing need not look for
-- them: an entry of a key is the list {1, usage, ...} or, while any units are held, the list
-- {2, holds, usage, ...}. The holds are packed as places are.
local WITHOUT_HOLDS, WITH_HOLDS = 1, 2

-- Reports whether a list can be that of a key, and returns the units that it holds, or nil.
local function unpackHolds(list)
  if not list then
    return false
  end
  if list[1] ~= WITH_HOLDS then
    return list[1] == WITHOUT_HOLDS
  end
  local holds = unpackPlaces(list[2])
  return holds ~= nil, holds
end
