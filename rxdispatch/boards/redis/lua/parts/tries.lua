-- Parts: head
-- Keys: TRIES
-- TRIES: failed attempts, crashes, marks, and the last error. The marks: 1 if the ttl ended during an
-- attempt, plus 2 if the task has lapsed in a delivery.
local function tries(id)
  local found = call('HGET', TRIES, id)
  if not found or #found < 9 then return 0, 0, 0, '' end
  local attempts, crashes, marks = struct.unpack('>I4I4B', found)
  return attempts, crashes, marks, string.sub(found, 10)
end

local function set_tries(id, attempts, crashes, marks, err)
  flag('r')
  call('HSET', TRIES, id, struct.pack('>I4I4B', attempts, crashes, marks) .. err)
end
