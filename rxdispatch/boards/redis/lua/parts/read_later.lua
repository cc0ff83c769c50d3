-- Parts: inboxes, take, ranges, claimed_between
-- Keys: LEASES, TASKS, TRIES
-- What was handed to the inbox of this claim and not read, up to *last*, is part of the reply.
local mine, later, handed = nil, {}, 0

local function read_later(name, read, last)
  mine = read_inbox(name)
  if not mine then return end
  local unread = {}
  for at = 1, #mine.unread, 10 do
    local first, count = struct.unpack('>dI2', mine.unread, at)
    if first > read then
      unread[#unread + 1] = string.sub(mine.unread, at, at + 9)
      local ids, held = {}, {}
      if first <= last then ids, held = claimed_between(first, first + count - 1) end
      if #ids > 0 then
        handed = handed + #ids
        local past = {}
        for i, id in ipairs(ids) do past[i] = flagged('r') and counts_of(call('HGET', TRIES, id)) end
        later[#later + 1] = { first, held, ids, call('HMGET', TASKS, unpack(ids)), past }
      end
    end
  end
  mine.unread = table.concat(unread)
end

-- Gives the worker as much time to confirm them as if they were handed over now.
local function extend_later()
  for _, delivery in ipairs(later) do
    for _, token in ipairs(delivery[2]) do
      local range = range_of(token)
      if range.handed and not range.extended then
        range.extended = true
        call('ZADD', LEASES, now + DELIVERY_LEASE, range.first)
        due(now + DELIVERY_LEASE)
      end
    end
  end
end
