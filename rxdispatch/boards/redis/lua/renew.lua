-- Parts: renewal, events
-- Extends leases.
-- ARGV 6: lease in microseconds, 7: how many; then the ids, then their tokens.
-- Reply: '1' where the token still holds, else '0'. A repeated request only extends the leases
-- again.
-- A full server allows ZREM, and after its first write a script may also use memory: a renewal must
-- pass.
local lease, count = tonumber(ARGV[6]), tonumber(ARGV[7])
call('ZREM', LEASES, '')
local ids = {}
for i = 1, count do ids[i] = ARGV[7 + i] end
local marks = count > 0 and call('ZMSCORE', CLAIMED, unpack(ids)) or {}
local answer = {}
for i = 1, count do
  local token = tonumber(marks[i] or '')
  if token and token == tonumber(ARGV[7 + count + i]) then
    answer[i] = '1'
    renew(token)
  else
    answer[i] = '0'
  end
end
write_renewals(lease)
-- Insert: finish
return table.concat(answer)
