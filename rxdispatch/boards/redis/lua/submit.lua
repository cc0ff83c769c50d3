-- Parts: session, numbers, events
-- Keys: TASKS, READY, EXPIRY, PAST
-- Adds tasks to the board.
-- ARGV 9: how many tasks; then (id, record, options) of each; options are '' or
-- 'priority delay ttl', in microseconds, ttl 0 for none.
-- Reply: '1' for each task that was added, '0' for each that was known.
-- A full server refuses the first write, so that a refused submit has changed nothing.
if again then return again end

local count = tonumber(ARGV[9])
local ids = {}
for i = 1, count do ids[i] = ARGV[7 + 3 * i] end

-- Which ids are on the board already. HMGET is faster, but reads the records: after 1 MiB, HEXISTS.
local there, read = {}, 0
for first = 1, count, 64 do
  local last = math.min(first + 63, count)
  if read < 1048576 then
    for i, record in ipairs(call('HMGET', TASKS, unpack(ids, first, last))) do
      there[first + i - 1] = record and true
      read = read + #(record or '')
    end
  else
    for i = first, last do there[i] = call('HEXISTS', TASKS, ids[i]) == 1 end
  end
end
local past = {}
if REMEMBER > 0 then past = call('ZMSCORE', PAST, unpack(ids)) end

local number = numbers(count)
local rows, places, later, answer, added = {}, {}, {}, {}, {}
local of_kind = nil
for i = 1, count do
  local id, record, options = ids[i], ARGV[8 + 3 * i], ARGV[9 + 3 * i]
  if there[i] or added[id] or (past[i] and tonumber(past[i]) > now) then
    answer[i] = '0'
  else
    answer[i] = '1'
    added[id] = true
    if (string.byte(record) or 255) <= 3 then
      flag('k')
      of_kind = of_kind or {}
      local one = kind_of(record)
      of_kind[one] = (of_kind[one] or 0) + 1
    end
    rows[#rows + 1] = id
    rows[#rows + 1] = record
    local place = number + i - 1
    local delay = 0
    if options ~= '' then
      local priority, wait, ttl = string.match(options, '^(%S+) (%S+) (%S+)$')
      place = place - tonumber(priority) * SPAN
      delay = tonumber(wait)
      if ttl ~= '0' then
        flag('t')
        due(now + tonumber(ttl))
        call('ZADD', EXPIRY, now + tonumber(ttl), id)
      end
    end
    if delay > 0 then
      later[#later + 1] = { id, now + delay, place }
    else
      places[#places + 1] = place
      places[#places + 1] = id
    end
    event('submitted', id, nil, nil, nil, nil, record)
  end
end

-- The server keeps a hash of few short values as a list, and searches it for every field. One long
-- value makes it a table until it is empty. No task has the id ''.
if #rows > 0 then
  local length = call('HLEN', TASKS)
  local grows = length <= 32 and length + #rows / 2 > 32
  if grows then call('HSET', TASKS, '', string.rep('-', 65)) end
  call('HSET', TASKS, unpack(rows))
  if grows then call('HDEL', TASKS, '') end
end
if of_kind then
  for one, count in pairs(of_kind) do count_kind(one, count) end
end
if count == 1 and #places > 0 and flagged('w') and not suspected and not flagged('p')
    and paused_field == '' then
  -- Insert: hand_at_once
end
if #places > 0 then
  woke = true
  call('ZADD', READY, unpack(places))
end
if #later > 0 then
  -- Insert: scheduled
  for _, row in ipairs(later) do schedule(row[1], row[2], row[3]) end
end
if woke and flagged('w') then
  -- Insert: hand_over
end
if sooner then
  -- Insert: tell_keepers
end
-- Insert: finish
return keep(table.concat(answer))
