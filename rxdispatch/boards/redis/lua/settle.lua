-- Ends claims: done, retry, dead or release.
-- ARGV 6: how many are done; then their ids, then their tokens (8 bytes each). Then each other
-- settlement as (kind, id, token, delay in microseconds, reason, error); the kind is 'r' for retry,
-- 'x' for dead, 'l' for release.
-- Reply: '1' where the token held, else '0', in that order.
-- A full server allows DEL, and after its first write a script may also use memory: settlements
-- must pass, because they free memory.
local again = call('GET', REPLY)
if again then return again end
call('DEL', REPLY)

local count = tonumber(ARGV[6])
local answer, done = {}, {}
if count > 0 then
  local ids = {}
  for i = 1, count do ids[i] = ARGV[6 + i] end
  local marks = call('HMGET', MARKS, unpack(ids))
  local finished = {}
  for i = 1, count do
    local mark = marks[i]
    if mark and not finished[ids[i]] and string.sub(mark, 1, 8) == ARGV[6 + count + i] then
      answer[i] = '1'
      finished[ids[i]] = true
      done[#done + 1] = ids[i]
      if heard then
        local token, _, worker = read_mark(mark)
        event('done', ids[i], token, tries(ids[i]) + 1, worker)
      end
    else
      answer[i] = '0'
    end
  end
end
if #done > 0 then
  ended = true
  call('ZREM', LEASES, unpack(done))
  call('HDEL', MARKS, unpack(done))
  let_go(done)
  call('HDEL', TASKS, unpack(done))
  if call('HLEN', TRIES) > 0 then call('HDEL', TRIES, unpack(done)) end
  if call('ZCARD', EXPIRY) > 0 then call('ZREM', EXPIRY, unpack(done)) end
  call('HINCRBY', META, 'done', #done)
  if REMEMBER > 0 then
    local rows = {}
    for i, id in ipairs(done) do
      rows[2 * i - 1] = now + REMEMBER * 1000000
      rows[2 * i] = id
    end
    call('ZADD', PAST, unpack(rows))
  end
end

local function end_one(at)
  local kind, id, delay = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 3])
  local reason, err = ARGV[at + 4], ARGV[at + 5]
  local mark = call('HGET', MARKS, id)
  if not mark or string.sub(mark, 1, 8) ~= ARGV[at + 2] then return '0' end
  local token, place, worker = read_mark(mark)
  call('ZREM', LEASES, id)
  call('HDEL', MARKS, id)
  let_go({ id })
  local attempts, crashes, late, last = tries(id)
  local expires = call('ZSCORE', EXPIRY, id)
  local expired = late == 1 or (expires and tonumber(expires) <= now)
  if kind == 'l' then
    if expired then
      bury(id, place, 'expired', last, attempts, crashes, token, worker, attempts + 1)
    else
      if delay > 0 then schedule(id, now + delay, place) else put_ready(id, place) end
      event('released', id, token, attempts + 1, worker)
    end
  elseif kind == 'r' and not expired then
    attempts = attempts + 1
    -- A byte 255 separates the error from the traceback, which only dead tasks keep.
    err = string.match(err, '^[^\255]*')
    set_tries(id, attempts, crashes, 0, err)
    local base = base_of(place)
    if delay > 0 then
      schedule(id, now + delay, '+' .. string.format('%.0f', base))
    else
      put_ready(id, base + numbers(1))
    end
    event('retried', id, token, attempts, worker)
  else
    if kind == 'r' then reason = 'expired' end
    bury(id, place, reason, err, attempts + 1, crashes, token, worker, attempts + 1)
  end
  return '1'
end

for at = 7 + 2 * count, #ARGV, 6 do answer[#answer + 1] = end_one(at) end
finish()
return keep(table.concat(answer))
