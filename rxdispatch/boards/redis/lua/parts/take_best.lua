-- Parts: take
-- Keys: READY
-- Claims the best ready tasks.
local mixed = false
if suspected then
  -- Insert: take_suspects
  take_suspects(function(place)
    return call('ZCOUNT', READY, '-inf', '(' .. string.format('%.0f', place))
  end)
  mixed = #ids > 0
end
while #ids < limit and step > 0 do
  local popped = call('ZPOPMIN', READY, math.min(step, limit - #ids))
  if #popped == 0 then break end
  take_some(parted(popped))
end
more = more or (#ids < limit and step == 0)
if mixed then
  -- Insert: sort_taken
end
