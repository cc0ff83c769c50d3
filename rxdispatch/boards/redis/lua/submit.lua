-- Adds tasks, unless their ids are known.
-- ARGV 6: how many tasks; then (id, record, options) of each. Options are '' or
-- 'priority delay ttl'; delay and ttl are in microseconds, and a ttl of 0 means none.
-- Reply: '1' for each task that was added, '0' for each id that was known.
-- The first write is HINCRBY, which a full server refuses, so that a submission fails before it
-- changes anything.
local again = call('GET', REPLY)
if again then return again end

local count = tonumber(ARGV[6])
local ids = {}
for i = 1, count do ids[i] = ARGV[4 + 3 * i] end

-- Which ids are on the board already. HMGET is faster, but it reads the records, so after 1 MiB of
-- records the script uses HEXISTS.
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
for i = 1, count do
  local id, record, options = ids[i], ARGV[5 + 3 * i], ARGV[6 + 3 * i]
  if there[i] or added[id] or (past[i] and tonumber(past[i]) > now) then
    answer[i] = '0'
  else
    answer[i] = '1'
    added[id] = true
    rows[#rows + 1] = id
    rows[#rows + 1] = record
    local place = number + i - 1
    local delay = 0
    if options ~= '' then
      local priority, wait, ttl = string.match(options, '^(%S+) (%S+) (%S+)$')
      place = place - tonumber(priority) * SPAN
      delay = tonumber(wait)
      if ttl ~= '0' then call('ZADD', EXPIRY, now + tonumber(ttl), id) end
    end
    if delay > 0 then
      later[#later + 1] = { id, now + delay, place }
    else
      places[#places + 1] = place
      places[#places + 1] = id
    end
    event('submitted', id)
  end
end
if #rows > 0 then fill(TASKS, rows) end
if #places > 0 then call('ZADD', READY, unpack(places)) end
for _, row in ipairs(later) do schedule(row[1], row[2], row[3]) end
finish()
return keep(table.concat(answer))
