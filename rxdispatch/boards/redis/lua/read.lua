-- ARGV 6: bytes after which the reply stops; from 7: ids. Reply: their records, '' where there is
-- none; at least one. Writes nothing.
local room = tonumber(ARGV[6])
local records = {}
for i = 7, #ARGV do
  local record = call('HGET', TASKS, ARGV[i]) or ''
  records[#records + 1] = record
  room = room - #record
  if room <= 0 then break end
end
return records
