-- Parts: events
-- The end of a script that writes: publishes the events, and stores what has changed in META.
if log then call('PUBLISH', EVENTS, struct.pack('>d', now) .. table.concat(log)) end
do
  local n = #meta
  local function store(name, value)
    meta[n + 1], meta[n + 2] = name, value
    n = n + 2
  end
  if not known[11] then store('format', 1) end
  if next_due ~= (tonumber(known[6] or '') or math.huge) then
    store('next', next_due == math.huge and '' or next_due)
  end
  if flags ~= (known[7] or '') then store('flags', flags) end
  if stamp ~= tonumber(known[8] or 0) then store('stamp', stamp) end
  if last_token ~= tonumber(known[9] or 0) then store('token', last_token) end
  if seq ~= tonumber(known[10] or 0) then store('seq', seq) end
end
call('HSET', META, 'raw', raw, unpack(meta))
