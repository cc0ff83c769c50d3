-- Parts: let_go
-- Keys: HELD
-- HELD has two kinds of fields. 't' .. id, for each claimed suspect: its weight and worker.
-- 'w' .. worker: the weight of all suspects that the worker holds; at most ROOM, unless the worker
-- claimed some by their ids.
local ROOM = 4

local function weight_of(crashes)
  if crashes == 0 then return 0 end
  return crashes == 1 and MAX_CRASHES > 1 and 1 or ROOM
end

local function hold(id, crashes, worker)
  local weight = weight_of(crashes)
  if weight > 0 then
    call('HSET', HELD, 't' .. id, string.char(weight) .. worker)
    call('HINCRBY', HELD, 'w' .. worker, weight)
  end
end
