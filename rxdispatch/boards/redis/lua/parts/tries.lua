-- Parts: head
-- Keys: TRIES
-- TRIES: failed attempts, crashes, 1 if the ttl ended during an attempt, and the last error.
local function tries(id)
  local found = call('HGET', TRIES, id)
  if not found or #found < 9 then return 0, 0, 0, '' end
  local attempts, crashes, late = struct.unpack('>I4I4B', found)
  return attempts, crashes, late, string.sub(found, 10)
end

local function set_tries(id, attempts, crashes, late, err)
  flag('r')
  call('HSET', TRIES, id, struct.pack('>I4I4B', attempts, crashes, late) .. err)
end
