-- Parts: numbers, tries, events, kinds
-- Keys: DEAD, GRAVE, TASKS, EXPIRY
-- Makes a task dead. Only a claimed task has the last three arguments; *attempt* is the number of
-- the running attempt.
local function bury(id, place, reason, err, attempts, crashes, token, worker, attempt)
  ended = true
  call('HDEL', TRIES, id)
  call('ZREM', EXPIRY, id)
  -- No two deaths have the same time, so that a reader can continue after the last one it has read.
  stamp = math.max(now, stamp + 1)
  call('ZADD', DEAD, stamp, id)
  local kind = 'default'
  if flagged('k') then
    local record = call('HGET', TASKS, id)
    kind = kind_of(record)
    if record then count_kind(kind, -1) else lose_kind() end
  end
  call('HSET', GRAVE, id, struct.pack('>I4I4dI2I2', attempts, crashes, base_of(place), #kind, #reason)
    .. kind .. reason .. err)
  event('dead', id, token, attempt, worker, reason)
end
