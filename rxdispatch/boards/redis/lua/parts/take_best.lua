-- Parts: take
-- Keys: READY
-- Claims the best ready tasks.
local mixed = false
if suspected then
  -- Insert: take_suspects
  take_suspects()
  mixed = #ids > 0
end
while #ids < limit and step > 0 do
  local popped = call('ZPOPMIN', READY, math.min(step, limit - #ids))
  if #popped == 0 then break end
  local found, at = {}, {}
  for i = 1, #popped, 2 do
    found[#found + 1] = popped[i]
    at[#at + 1] = popped[i + 1]
  end
  take_some(found, at)
end
more = more or (#ids < limit and step == 0)
if mixed then
  -- By place, because they come from both queues.
  local order = {}
  for i = 1, #ids do order[i] = i end
  table.sort(order, function(a, b) return tonumber(places[a]) < tonumber(places[b]) end)
  local was = { ids, places, records, history }
  ids, places, records, history = {}, {}, {}, {}
  for i, from in ipairs(order) do
    ids[i], places[i], records[i], history[i] = was[1][from], was[2][from], was[3][from], was[4][from]
  end
end
