-- Parts: take, tries, held
-- Keys: SUSPECTS, HELD
-- Claims the first suspects, as long as this worker has room for them and they are among the
-- *limit* best ready tasks. *better* says how many others have a better place.
local function take_suspects(better)
  local held = tonumber(call('HGET', HELD, 'w' .. worker) or 0)
  if held >= ROOM then return end
  local first, found, at = call('ZRANGE', SUSPECTS, 0, ROOM - 1, 'WITHSCORES'), {}, {}
  for i = 1, #first, 2 do
    local id, place = first[i], tonumber(first[i + 1])
    local _, crashes = tries(id)
    held = held + weight_of(crashes)
    if held > ROOM or better(place) + #found >= limit then break end
    found[#found + 1] = id
    at[#at + 1] = first[i + 1]
  end
  if #found > 0 then
    call('ZREM', SUSPECTS, unpack(found))
    take_some(found, at)
  end
end
