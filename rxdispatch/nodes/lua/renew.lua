-- Arguments: the lease in microseconds, then ids of slots.
-- Reply: 1 where the slot is held and its node is in the same life, else 0; the published messages.
allow_when_full()
sweep()
local held = {}
for at = REST + 1, #ARGV do
  local slot = ARGV[at]
  local value = call('HGET', SLOTS, slot)
  held[#held + 1] = 0
  if value then
    local record = call('HGET', NODES, string.sub(value, 9))
    if record and read(record).birth == struct.unpack('>I8', value) then
      call('ZADD', LEASES, 'XX', now + ARGV[REST], slot)
      held[#held] = 1
    end
  end
end
return { held, finish() }
