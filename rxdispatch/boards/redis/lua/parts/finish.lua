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
  if next_due ~= known[6] then
    store('next', next_due == math.huge and '' or next_due)
  end
  if flags ~= (known[7] or '') then store('flags', flags) end
  if stamp ~= known[8] then store('stamp', stamp) end
  if last_token ~= known[9] then store('token', last_token) end
  if seq ~= known[10] then store('seq', seq) end
end
-- An idle poll need not store the clock, but another server continues from the last one.
if not idle or #meta > 0 or raw - last_raw > 30000000 then call('HSET', META, 'raw', raw, unpack(meta)) end
