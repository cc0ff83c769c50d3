-- Parts: session, places, let_go, graves, ready
-- Keys: READY, SUSPECTS, SCHED, PLACE
-- Makes tasks dead as cancelled, whether scheduled, ready or claimed.
-- ARGV from 9: ids. Reply: '1' for each that was there, else '0'.
-- The tokens of claimed tasks are refused from now on.
if again then return again end
-- A full server allows HDEL, and after its first write a script may also use memory.
call('HDEL', SESSION, '')

local ready_before = ready_count()
local answer = {}
if aside_field ~= '' then
  -- Insert: find_aside
  for i = 9, #ARGV do find_aside(ARGV[i]) end
end
for i = 9, #ARGV do
  local id = ARGV[i]
  local token, worker
  local place = call('ZSCORE', READY, id)
  if not place and suspected then place = call('ZSCORE', SUSPECTS, id) end
  if place then
    call('ZREM', READY, id)
    if suspected then call('ZREM', SUSPECTS, id) end
  else
    token = tonumber(call('ZSCORE', CLAIMED, id) or '')
    if token then
      place, worker = place_of(token), range_of(token).worker
      call('ZREM', CLAIMED, id)
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
close_ranges()
-- Insert: trim_dead, hint_ready, hint_joined, finish
return keep(table.concat(answer))
