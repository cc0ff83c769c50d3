-- Parts: events
-- Keys: DEAD, GRAVE, TASKS
-- Discards the oldest dead tasks above the limit.
do
  local over = call('ZCARD', DEAD) - DEAD_LIMIT
  if over > 0 then
    local oldest = call('ZRANGE', DEAD, 0, math.min(over, 2000) - 1)
    call('ZREM', DEAD, unpack(oldest))
    call('HDEL', GRAVE, unpack(oldest))
    for _, id in ipairs(oldest) do event('discarded', id) end
    call('HDEL', TASKS, unpack(oldest))
  end
end
