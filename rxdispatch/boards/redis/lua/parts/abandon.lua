-- Parts: places, claimed_between, let_go, graves, ready
-- Keys: SESSION
-- Undoes a claim whose reply the client never read: its tasks return to their places, and nothing
-- is counted.
local function abandon(slot, number)
  local stored = call('HGET', SESSION, slot)
  local kept, rest = 0, 0
  if stored then kept, rest = struct.unpack('>d', stored) end
  if kept > number then return end
  if kept == number and #stored == rest + 11 then
    local base, count = struct.unpack('>dI4', stored, rest)
    count = count % MORE
    local ids, tokens = {}, {}
    if count > 0 then ids, tokens = claimed_between(base, base + count - 1) end
    for i, id in ipairs(ids) do
      local attempts, crashes, late, err = tries(id)
      local place = place_of(tokens[i])
      call('ZREM', CLAIMED, id)
      let_go({ id })
      if late == 1 then
        bury(id, place, 'expired', err, attempts, crashes)
      else
        put_ready(id, place)
      end
    end
    close_ranges()
  end
  -- If the request is still on its way, it finds this reply and does nothing.
  call('HSET', SESSION, slot, struct.pack('>ddI4', number, 0, 0))
end
