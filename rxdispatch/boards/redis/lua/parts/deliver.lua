-- Parts: takers, write_range, events
-- Keys: CLAIMED
-- A delivery: claims that are made for a parked worker and published to its inbox.
local BYTES, UNREAD = 65536, 32

-- Returns whether anybody listens; otherwise nothing is claimed.
local function deliver(inbox, ids, places, records, past)
  local first = tokens(#ids)
  local parts = { struct.pack('>BdddI2I2', 100, inbox.last, first, now, inbox.room - #ids, #ids) }
  for i, id in ipairs(ids) do
    parts[i + 1] = struct.pack('>I2I4B', #id, #records[i], #past[i]) .. id .. records[i] .. past[i]
  end
  if not send(inbox, table.concat(parts)) then return false end
  local marks = {}
  for i, id in ipairs(ids) do
    marks[2 * i - 1], marks[2 * i] = first + i - 1, id
    if heard then
      local attempts = struct.unpack('>I4', past[i] .. '\0\0\0\0')
      event('claimed', id, first + i - 1, attempts + 1, inbox.worker, nil, records[i])
    end
  end
  call('ZADD', CLAIMED, unpack(marks))
  write_range(first, #ids, { worker = inbox.worker, inbox = inbox.name, handed = true }, places,
    now + DELIVERY_LEASE)
  inbox.last = first
  inbox.unread = inbox.unread .. struct.pack('>dI2', first, #ids)
  -- A worker claims long before it has so many deliveries unread.
  park(inbox, #inbox.unread < 10 * UNREAD and inbox.room - #ids or 0, line_of_inbox(inbox))
  return true
end
