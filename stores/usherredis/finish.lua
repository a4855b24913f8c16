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
