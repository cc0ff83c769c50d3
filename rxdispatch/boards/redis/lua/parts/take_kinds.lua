-- Parts: take, bring_back
-- Keys: READY, SUSPECTS, TASKS
-- Claims the best ready tasks of the kinds that are allowed, and puts others that it comes across
-- aside. One claim looks at about a thousand tasks; after that, the reply says that more is due.
local looked = 0

-- Puts tasks of other kinds aside; returns those that are allowed, their places and their records,
-- and those that are not.
local function sort_out(first, letter)
  local found, at = {}, {}
  for i = 1, #first, 2 do
    found[#found + 1], at[#at + 1] = first[i], first[i + 1]
  end
  local left, places_left, records_left, gone = {}, {}, {}, {}
  for i, record in ipairs(call('HMGET', TASKS, unpack(found))) do
    room = room - #(record or '')
    local one = record and kind_of(record)
    if one and not allowed(one) then
      put_aside(one, letter, found[i], tonumber(at[i]))
      gone[#gone + 1] = found[i]
      -- The sweep of this claim may have made it ready: others hear about it.
      if ready_before then sooner = true end
    else
      local n = #left + 1
      left[n], places_left[n], records_left[n] = found[i], at[i], record
    end
  end
  looked = looked + #found
  step = room <= 0 and 0 or math.min(1000, math.floor(room * looked / (8388608 - room + 1)) + 1)
  return left, places_left, records_left, gone
end

bring_back('r', READY, limit)
-- The best tasks that are no suspects.
local found, at, written = {}, {}, {}
local reached
while #found < limit and step > 0 and looked < 1000 do
  local popped = call('ZPOPMIN', READY, math.min(step, limit - #found))
  if #popped == 0 then break end
  reached = tonumber(popped[#popped])
  local left, places_left, records_left = sort_out(popped, 'r')
  for i, id in ipairs(left) do
    local n = #found + 1
    found[n], at[n], written[n] = id, places_left[i], records_left[i]
  end
end
local cut = #found < limit and (step <= 0 or looked >= 1000)
more = more or cut
if suspected then
  bring_back('s', SUSPECTS, 4)
  -- The first four suspects must be allowed ones.
  local clean
  repeat
    local first = call('ZRANGE', SUSPECTS, 0, 3, 'WITHSCORES')
    local gone = {}
    if #first > 0 then gone = select(4, sort_out(first, 's')) end
    if #gone > 0 then call('ZREM', SUSPECTS, unpack(gone)) end
    clean = #gone == 0
  until clean or step <= 0 or looked >= 1000
  more = more or not clean
  if clean then
    -- Insert: take_suspects
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
write_standing()
