-- Parts: take, sort_out, find_aside
-- Keys: READY, SUSPECTS
-- Claims the wanted ids that are ready, in the order in which they are wanted.
local wanted, seen = {}, {}
for i = at + 1, #ARGV do
  if not seen[ARGV[i]] then
    seen[ARGV[i]] = true
    wanted[#wanted + 1] = ARGV[i]
  end
end
if next(standing) then
  for _, id in ipairs(wanted) do find_aside(id, allowed) end
end
local scores = #wanted > 0 and call('ZMSCORE', READY, unpack(wanted)) or {}
local crashed = {}
if suspected and #wanted > 0 then
  -- A claim by id ignores how many suspects the worker holds.
  for i, place in ipairs(call('ZMSCORE', SUSPECTS, unpack(wanted))) do
    if place then scores[i], crashed[wanted[i]] = place, true end
  end
end

local function letter_of(id) return crashed[id] and 's' or 'r' end

local next_one = 1
while next_one <= #wanted and #ids < limit and step > 0 do
  local found, at, written = {}, {}, nil
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
    if next(paused_kinds) then found, at, written = sort_out(found, at, letter_of) end
    if #found > 0 then take_some(found, at, written) end
  end
end
more = more or (next_one <= #wanted and step == 0)
write_standing()
