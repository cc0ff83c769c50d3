-- Parts: take, sort_out, bring_back
-- Keys: READY, SUSPECTS
-- Claims the best ready tasks of the kinds that are allowed, and puts others that it comes across
-- aside. One claim looks at about a thousand tasks; after that, the reply says that more is due.
local looked = 0

-- Sorts out the tasks of a reply, and counts what it has looked at.
local function look_at(reply, letter)
  local found, at = parted(reply)
  local left, places_left, records_left, removed, size =
    sort_out(found, at, function() return letter end)
  looked, room = looked + #found, room - size
  step = room <= 0 and 0 or math.min(1000, math.floor(room * looked / (8388608 - room + 1)) + 1)
  return left, places_left, records_left, removed
end

bring_back('r', READY, limit)
-- The best tasks that are no suspects.
local found, at, written = {}, {}, {}
local reached
while #found < limit and step > 0 and looked < 1000 do
  local popped = call('ZPOPMIN', READY, math.min(step, limit - #found))
  if #popped == 0 then break end
  reached = tonumber(popped[#popped])
  local left, places_left, records_left = look_at(popped, 'r')
  for i, id in ipairs(left) do
    local n = #found + 1
    found[n], at[n], written[n] = id, places_left[i], records_left[i]
  end
end
local cut = #found < limit and (step <= 0 or looked >= 1000)
more = more or cut
if suspected then
  -- Insert: take_suspects
  bring_back('s', SUSPECTS, ROOM)
  -- The suspects that it takes are among the first ROOM, which must be allowed ones.
  local clean
  repeat
    local first = call('ZRANGE', SUSPECTS, 0, ROOM - 1, 'WITHSCORES')
    local removed = {}
    if #first > 0 then removed = select(4, look_at(first, 's')) end
    if #removed > 0 then call('ZREM', SUSPECTS, unpack(removed)) end
    clean = #removed == 0
  until clean or step <= 0 or looked >= 1000
  more = more or not clean
  if clean then
    take_suspects(function(place)
      -- Behind the last one that this claim has looked at, others may be better.
      if cut and place > reached then return limit end
      local better = 0
      while better < #at and tonumber(at[better + 1]) < place do better = better + 1 end
      return better
    end)
  end
end
local mixed = #ids > 0
if mixed then
  -- The suspects have taken the place of some.
  for i = #found, math.max(limit - #ids, 0) + 1, -1 do
    call('ZADD', READY, at[i], found[i])
    found[i], at[i], written[i] = nil, nil, nil
  end
end
take(found, at, written)
if mixed then
  -- Insert: sort_taken
end
if #ids > 0 and #ids == limit then
  -- Others may claim what is left of these kinds.
  for one in pairs(standing) do
    if allowed(one) then gone[one] = true end
  end
end
write_standing()
