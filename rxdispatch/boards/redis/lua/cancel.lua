-- Makes tasks dead with the reason 'cancelled'.
-- ARGV from 6: ids. Reply: '1' for each task that was scheduled, ready or claimed, else '0'.
-- A claimed task loses its mark, so that later scripts refuse the token of its claim.
local again = call('GET', REPLY)
if again then return again end
call('DEL', REPLY)

local answer = {}
for i = 6, #ARGV do
  local id = ARGV[i]
  local token, worker
  local place = call('ZSCORE', READY, id)
  if not place and suspected then place = call('ZSCORE', SUSPECTS, id) end
  if place then
    call('ZREM', READY, id)
    if suspected then call('ZREM', SUSPECTS, id) end
  else
    local mark = call('HGET', MARKS, id)
    if mark then
      token, place, worker = read_mark(mark)
      call('ZREM', LEASES, id)
      call('HDEL', MARKS, id)
      let_go({ id })
    elseif call('ZREM', SCHED, id) == 1 then
      place = string.gsub(call('HGET', PLACE, id) or '0', '%+', '')
      call('HDEL', PLACE, id)
    end
  end
  if place then
    local attempts, crashes, _, err = tries(id)
    bury(id, tonumber(place), 'cancelled', err, attempts, crashes, token, worker, attempts + 1)
    answer[#answer + 1] = '1'
  else
    answer[#answer + 1] = '0'
  end
end
finish()
return keep(table.concat(answer))
