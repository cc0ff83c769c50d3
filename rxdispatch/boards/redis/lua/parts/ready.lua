-- Parts: tries
-- Keys: READY, SUSPECTS
-- The tasks that workers can claim.
local function ready_count()
  return call('ZCARD', READY) + (suspected and call('ZCARD', SUSPECTS) or 0)
end

-- Makes a task of the board ready at *place*.
local function put_ready(id, place)
  local crashes = 0
  if suspected then crashes = select(2, tries(id)) end
  if crashes > 0 then woke_suspect = true else woke = true end
  call('ZADD', crashes > 0 and SUSPECTS or READY, place, id)
end
