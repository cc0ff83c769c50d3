-- ARGV 6: the time (microseconds) after which to go on, or '-inf'; 7: how many.
-- Reply: {ids, records, graves, times}, oldest first. Writes nothing.
local after = ARGV[6] == '-inf' and '-inf' or '(' .. ARGV[6]
local found = call('ZRANGEBYSCORE', DEAD, after, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[7])
local ids, times = {}, {}
for i = 1, #found, 2 do
  ids[#ids + 1] = found[i]
  times[#times + 1] = string.format('%.0f', tonumber(found[i + 1]))
end
if #ids == 0 then return { {}, {}, {}, {} } end
return { ids, call('HMGET', TASKS, unpack(ids)), call('HMGET', GRAVE, unpack(ids)), times }
