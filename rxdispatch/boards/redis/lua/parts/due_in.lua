-- Parts: head
-- Keys: SCHED
-- Returns the microseconds until a worker should claim again; -1 when nothing is scheduled.
local function due_in()
  if more then return 0 end
  if not flagged('d') then return -1 end
  local first = call('ZRANGE', SCHED, 0, 0, 'WITHSCORES')
  if not first[2] then return -1 end
  return math.max(0, tonumber(first[2]) - now)
end
