-- Extends leases.
-- ARGV 6: lease in microseconds, 7: how many; then the ids, then their tokens (8 bytes each).
-- Reply: '1' where the token still holds, else '0'. Safe to repeat, so no reply is kept.
-- A full server allows DEL, and after its first write a script may also use memory: a renewal must
-- never fail for lack of memory.
local lease, count = tonumber(ARGV[6]), tonumber(ARGV[7])
call('DEL', REPLY)
local ids = {}
for i = 1, count do ids[i] = ARGV[7 + i] end
local marks = call('HMGET', MARKS, unpack(ids))
local rows, answer = {}, {}
for i = 1, count do
  if marks[i] and string.sub(marks[i], 1, 8) == ARGV[7 + count + i] then
    answer[i] = '1'
    rows[#rows + 1] = now + lease
    rows[#rows + 1] = ids[i]
  else
    answer[i] = '0'
  end
end
if #rows > 0 then call('ZADD', LEASES, unpack(rows)) end
finish()
return table.concat(answer)
