-- Keys: TASKS
-- Reads the records of tasks.
-- ARGV 6: the number of bytes after which the reply stops; from 7: ids. Reply: the records of the
-- first ids, at least one; '' where there is none. Writes nothing.
-- The last argument names the server, which does not matter here.
table.remove(ARGV)
local room = tonumber(ARGV[6])
local records = {}
for i = 7, #ARGV do
  local record = redis.call('HGET', TASKS, ARGV[i]) or ''
  records[#records + 1] = record
  room = room - #record
  if room <= 0 then break end
end
return records
