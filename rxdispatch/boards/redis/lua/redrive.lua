-- Parts: session, numbers, events, kinds
-- Keys: DEAD, GRAVE, READY
-- Makes dead tasks ready again.
-- ARGV 9: 'some', then ids; or 'all', then a time in microseconds: tasks that died later stay dead.
-- '' means now. Reply: {how many are ready again, the time to pass to the next call}.
-- A redriven task joins the end of its priority, with attempts and crashes at 0 and without a ttl.
if again then return cjson.decode(again) end

local until_time = ARGV[9] == 'all' and ARGV[10] or ''
local ids = {}
if ARGV[9] == 'some' then
  local seen = {}
  for i = 10, #ARGV do
    if not seen[ARGV[i]] and call('ZSCORE', DEAD, ARGV[i]) then
      seen[ARGV[i]] = true
      ids[#ids + 1] = ARGV[i]
    end
  end
else
  if until_time == '' then until_time = string.format('%.0f', now) end
  ids = call('ZRANGEBYSCORE', DEAD, '-inf', until_time, 'LIMIT', 0, 1000)
end

if #ids > 0 then
  local number = numbers(#ids)
  local graves = call('HMGET', GRAVE, unpack(ids))
  local rows, of_kind, _ = {}, {}, nil
  for i, id in ipairs(ids) do
    -- If the entry in GRAVE is missing or truncated, the priority is unknown, and 0 is used.
    local grave, base, kind = graves[i] or '', 0, nil
    if #grave >= 20 then
      local length, at
      base, length, _, at = select(3, struct.unpack('>I4I4dI2I2', grave))
      kind = string.sub(grave, at, at + length - 1)
    else
      kind = kind_of(call('HGET', TASKS, id))
    end
    of_kind[kind] = (of_kind[kind] or 0) + 1
    rows[2 * i - 1] = base + number + i - 1
    rows[2 * i] = id
    event('redriven', id)
  end
  -- A full server refuses the first write, so that nothing has changed.
  call('ZADD', READY, unpack(rows))
  for kind, count in pairs(of_kind) do count_kind(kind, count) end
  call('ZREM', DEAD, unpack(ids))
  call('HDEL', GRAVE, unpack(ids))
end
if #ids > 0 and flagged('w') then
  woke = true
  -- Insert: hand_over
end
-- Insert: finish
local reply = { #ids, until_time }
keep(cjson.encode(reply))
return reply
