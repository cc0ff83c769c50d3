-- Parts: session, places, let_go, graves, ready
-- Keys: META, READY, SUSPECTS, SCHED, PLACE
-- Makes tasks dead as cancelled, whether scheduled, ready or claimed.
-- ARGV from 9: ids. Reply: '1' for each that was there, else '0'.
-- The tokens of claimed tasks are refused from now on, and their workers are told.
if again then return again end
-- A full server allows HDEL, and after its first write a script may also use memory.
call('HDEL', SESSION, '')

local answer = {}
-- The tokens of claims that end, by the inboxes of their workers.
local told = {}
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
      local range = range_of(token)
      place, worker = place_of(token), range.worker
      if range.inbox ~= '' then
        told[range.inbox] = (told[range.inbox] or 'c') .. struct.pack('>d', token)
      end
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
for inbox, message in pairs(told) do
  call('PUBLISH', string.sub(META, 1, -5) .. 'inbox:' .. inbox, message)
end
-- Insert: trim_dead, hint_joined, finish
return keep(table.concat(answer))
