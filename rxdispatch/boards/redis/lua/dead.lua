-- Parts: head
-- Keys: DEAD, GRAVE, TASKS
-- Reads a page of dead letters, oldest first.
-- ARGV 6: the time of the last letter of the page before, in microseconds, or '-inf' for the first
-- page; 7: how many letters at most.
-- Reply: {ids, records, graves, times}. Writes nothing.
-- A reply has about 2 MiB, and at least one letter. The first two show how large letters are.
local after = ARGV[6] == '-inf' and '-inf' or '(' .. ARGV[6]
local found = call('ZRANGEBYSCORE', DEAD, after, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[7])
local ids, records, graves, times = {}, {}, {}, {}
local room, step, at = 2097152, 2, 1
while at < #found and room > 0 do
  local some = {}
  for i = at, math.min(at + 2 * step - 2, #found - 1), 2 do
    some[#some + 1] = found[i]
    times[#times + 1] = string.format('%.0f', tonumber(found[i + 1]))
  end
  at = at + 2 * #some
  local written, letters = call('HMGET', TASKS, unpack(some)), call('HMGET', GRAVE, unpack(some))
  local size = 0
  for i, id in ipairs(some) do
    ids[#ids + 1] = id
    records[#ids] = written[i]
    graves[#ids] = letters[i]
    size = size + #id + #(written[i] or '') + #(letters[i] or '')
  end
  room = room - size
  step = math.max(1, math.floor(room * #some / math.max(size, 1)))
end
return { ids, records, graves, times }
