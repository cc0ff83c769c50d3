-- Parts: aside
-- Keys: READY, SUSPECTS, TASKS
-- Puts a task that stands aside, if it does, back to where it was before.
local function find_aside(id)
  local place = tonumber(call('HGET', PLACE, id) or '')
  if not place then return end
  local kind = kind_of(call('HGET', TASKS, id))
  for letter, line in pairs({ r = READY, s = SUSPECTS }) do
    if call('ZREM', ASIDE, member_of(kind, letter, id, place)) == 1 then
      call('HDEL', PLACE, id)
      call('ZADD', line, place, id)
    end
  end
end
