-- Parts: put_back
-- Keys: SESSION
-- Undoes a claim whose reply the client never read.
local function abandon(slot, number)
  local stored = call('HGET', SESSION, slot)
  local kept, rest = 0, 0
  if stored then kept, rest = struct.unpack('>d', stored) end
  if kept > number then return end
  if kept == number and #stored == rest + 19 then
    local _, base, count = struct.unpack('>ddI4', stored, rest)
    count = count % MORE
    if count > 0 then put_back(base, base + count - 1) end
  end
  -- If the request is still on its way, it finds this reply and does nothing.
  call('HSET', SESSION, slot, struct.pack('>dddI4', number, 0, 0, 0))
end
