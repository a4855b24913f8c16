-- The units of a key that decisions hold, so that no other decision may use them. They are
-- stored with what the key has used, so that a decision that holds nothing need not look for
-- them: an entry of a key is the list {1, usage, ...} or, while there are any, the list
-- {2, holds, usage, ...}. The holds are packed as places are.
local WITHOUT_HOLDS, WITH_HOLDS = 1, 2

-- Returns the units that a list holds, or nil if it holds none.
local function unpackHolds(list)
  return list and list[1] == WITH_HOLDS and part.places.unpack(list[2]) or nil
end
