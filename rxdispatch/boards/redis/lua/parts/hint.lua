-- Parts: head
-- Wakes idle workers. Up to CROWD listeners may all claim for one task; more are told to take
-- turns, and told when nothing is ready any more. Their number is what the last PUBLISH returned:
-- NUMSUB of Valkey 9.1 miscounts.
local CROWD = 8
local listeners = tonumber(known[12] or 0)

local function hint(message)
  local found = call('PUBLISH', HINTS, message)
  if found ~= listeners then
    meta[#meta + 1] = 'crowd'
    meta[#meta + 1] = found
    listeners = found
  end
end
