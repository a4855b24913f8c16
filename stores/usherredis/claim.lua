-- Claims the key of a record.
--
-- KEYS   the record
-- ARGV   the present time or '', token, fingerprint, lease, TTL, both in microseconds, and
--        '1' to take an unknown outcome over, or ''
--
-- Returns whether the claim is won, the rest of its lease, and the record. Returns LOST to
-- a token that has released the key.
local now = clock(ARGV[1])
local token, fingerprint = ARGV[2], ARGV[3]
local lease, ttl = tonumber(ARGV[4]), tonumber(ARGV[5])

local r, fault = read(KEYS[1])
if fault then
  return fault
end

local keep = milliseconds(ttl)
local generation, status = now, 0
if r then
  local mine = r.token == token
  if r.state == RELEASED and mine then
    return redis.error_reply('LOST claim')
  end
  if r.state == CLAIMED and mine then
    -- A repeated call: it is the same claim, and its lease starts again.
    keep = math.max(keep, redis.call('PTTL', KEYS[1]))
    generation, fingerprint, status = r.generation, r.fingerprint, r.status
  elseif r.state == RELEASED then
    generation = math.max(r.generation + 1, now)
  elseif not mine and r.fingerprint == fingerprint
    and (r.state == CLAIMED and r.lease <= now or r.state == UNKNOWN and ARGV[6] == '1') then
    generation, status = math.max(r.generation + 1, now), TAKEN_OVER
  else
    local rest = 0
    if r.state == CLAIMED then
      rest = math.max(r.lease - now, 0)
    end
    return { 0, rest, r.value }
  end
end

local value = write({ state = CLAIMED, token = token, fingerprint = fingerprint,
  generation = generation, lease = now + lease, status = status, payload = '' })
redis.call('SET', KEYS[1], value, 'PX', digits(keep))
return { 1, lease, value }
