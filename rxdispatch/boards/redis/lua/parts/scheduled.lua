-- Parts: head
-- Keys: SCHED, PLACE
-- The tasks that wait until they are due. *place* is where a task will stand, or '+' and a base to
-- which a number is added then.

local function schedule(id, at, place)
  local first = call('ZRANGE', SCHED, 0, 0, 'WITHSCORES')
  if not first[2] or at < tonumber(first[2]) then sooner = true end
  flag('d')
  due(at)
  call('ZADD', SCHED, at, id)
  call('HSET', PLACE, id, place)
end
