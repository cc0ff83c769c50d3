-- Parts: keepers, takers
-- Keys: SCHED
-- Tells the timekeepers that a task is due earlier. If none is left, a parked worker becomes one.
do
  local first = call('ZRANGE', SCHED, 0, 0, 'WITHSCORES')
  local message = struct.pack('>Bd', 116, math.max(0, tonumber(first[2] or now) - now))
  local kept = {}
  for _, name in ipairs(read_keepers()) do
    if call('PUBLISH', INBOX .. name, message) > 0 then kept[#kept + 1] = name end
  end
  write_keepers(kept)
  if #kept == 0 then announce() end
end
