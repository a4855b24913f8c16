-- Starts the leases of claims again.
--
-- KEYS   the records
-- ARGV   the present time or '', lease in microseconds, and the token of each record
--
-- Returns for each record 1 if its claim is renewed, and 0 if it is lost: the key is not
-- claimed by this token, or its record cannot be read.
local now = clock(ARGV[1])
local lease = tonumber(ARGV[2])
local ends = struct.pack('>I8', now + lease)

local renewed = {}
for i, key in ipairs(KEYS) do
  -- A claim has no payload, so a longer record need not be read.
  local r = redis.pcall('STRLEN', key) == LENGTH and read(key)
  if r and r.state == CLAIMED and r.token == ARGV[i + 2] then
    -- Nothing grows, so this script may run when the memory is full.
    redis.call('SETRANGE', key, LEASE_AT, ends)
    redis.call('PEXPIRE', key, digits(milliseconds(lease)), 'GT')
    renewed[i] = 1
  else
    renewed[i] = 0
  end
end
return renewed
