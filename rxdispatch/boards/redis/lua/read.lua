-- ARGV 6: bytes after which it stops. ARGV 7...: ids. Reply: their records, '' for what has none,
-- up to where it stops, and one at least. Writes nothing.
local room = tonumber(ARGV[6])
local records = {}
for i = 7, #ARGV do
  local record = call('HGET', TASKS, ARGV[i]) or ''
  records[#records + 1] = record
  room = room - #record
  if room <= 0 then break end
end
return records
