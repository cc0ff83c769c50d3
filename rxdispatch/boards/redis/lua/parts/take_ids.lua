-- Parts: take
-- Keys: READY, SUSPECTS, TASKS
-- Claims the wanted ids that are ready, in the order in which they are wanted.
local wanted, seen = {}, {}
for i = at + 1, #ARGV do
  if not seen[ARGV[i]] then
    seen[ARGV[i]] = true
    wanted[#wanted + 1] = ARGV[i]
  end
end
if known[13] and known[13] ~= '' then
  -- Insert: find_aside
  for _, id in ipairs(wanted) do find_aside(id) end
end
if known[14] and known[14] ~= '' then
  -- Insert: allowed
  local left = {}
  for _, id in ipairs(wanted) do
    if allowed(kind_of(call('HGET', TASKS, id))) then left[#left + 1] = id end
  end
  wanted = left
end
local scores = #wanted > 0 and call('ZMSCORE', READY, unpack(wanted)) or {}
if suspected and #wanted > 0 then
  -- A claim by id ignores how many suspects the worker holds.
  for i, place in ipairs(call('ZMSCORE', SUSPECTS, unpack(wanted))) do
    scores[i] = scores[i] or place
  end
end
local next_one = 1
while next_one <= #wanted and #ids < limit and step > 0 do
  local found, at = {}, {}
  while next_one <= #wanted and #found < math.min(step, limit - #ids) do
    if scores[next_one] then
      found[#found + 1] = wanted[next_one]
      at[#at + 1] = scores[next_one]
    end
    next_one = next_one + 1
  end
  if #found > 0 then
    call('ZREM', READY, unpack(found))
    if suspected then call('ZREM', SUSPECTS, unpack(found)) end
    take_some(found, at)
  end
end
more = more or (next_one <= #wanted and step == 0)
