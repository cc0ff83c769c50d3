-- Parts: session, ranges, events
-- Keys: TASKS, TRIES, EXPIRY, PAST
-- Ends claims: done, retry, dead or release.
-- ARGV 9: how many are done, 10: how many runs of kinds; then the kind and length of each run, by
-- which the done ones are sorted, unless all are of the kind 'default'; then the ids of the done
-- ones, then their tokens. Then each other settlement as (verdict, id, token, delay in microseconds,
-- reason, error); the verdict is 'r' for retry, 'x' for dead, 'l' for release.
-- Reply: '1' where the token held, else '0', in that order.
if again then return again end
-- A full server allows HDEL and ZREM, and after its first write a script may also use memory:
-- settlements must pass, because they free memory.

local count, runs = tonumber(ARGV[9]), tonumber(ARGV[10])
-- The place before the ids.
local start = 10 + 2 * runs
local answer, done = {}, {}
if count > 0 then
  local ids = { unpack(ARGV, start + 1, start + count) }
  local marks = call('ZMSCORE', CLAIMED, unpack(ids))
  local n, first, last, range = 0, 0, -1, nil
  for i = 1, count do
    local mark, given = marks[i], ARGV[start + count + i]
    local token = mark and tonumber(mark)
    if token and (mark == given or token == tonumber(given)) then
      answer[i] = '1'
      n = n + 1
      done[n] = ids[i]
      if token < first or token > last then
        range = range_of(token)
        first, last = range.first, range.last
      end
      if heard then
        -- Insert: tries
        event('done', ids[i], token, tries(ids[i]) + 1, range.worker)
      end
    else
      answer[i] = '0'
    end
  end
end
if #done > 0 then
  ended = true
  call('ZREM', CLAIMED, unpack(done))
else
  call('HDEL', SESSION, '')
end
if #done > 0 then
  if suspected then
    -- Insert: let_go
    let_go(done)
  end
  call('HDEL', TASKS, unpack(done))
  if flagged('r') then call('HDEL', TRIES, unpack(done)) end
  if flagged('t') then call('ZREM', EXPIRY, unpack(done)) end
  call('HINCRBY', META, 'done', #done)
  if runs > 0 then
    -- Insert: kinds
    local i = 0
    for run = 11, start, 2 do
      local held = 0
      for _ = 1, tonumber(ARGV[run + 1]) do
        i = i + 1
        if answer[i] == '1' then held = held + 1 end
      end
      if held > 0 then count_kind(ARGV[run], -held) end
    end
  end
  if REMEMBER > 0 then
    local rows = {}
    for i, id in ipairs(done) do
      rows[2 * i - 1] = now + REMEMBER * 1000000
      rows[2 * i] = id
    end
    call('ZADD', PAST, unpack(rows))
    due(now + REMEMBER * 1000000)
  end
end

if start + 2 * count < #ARGV then
  -- Insert: places, let_go, graves, ready, scheduled
  local function end_one(at)
    local kind, id, delay = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 3])
    local reason, err = ARGV[at + 4], ARGV[at + 5]
    local token = tonumber(call('ZSCORE', CLAIMED, id) or '')
    if not token or token ~= tonumber(ARGV[at + 2]) then return '0' end
    local place, worker = place_of(token), range_of(token).worker
    call('ZREM', CLAIMED, id)
    let_go({ id })
    local attempts, crashes, marks, last = tries(id)
    local expires = call('ZSCORE', EXPIRY, id)
    local expired = marks % 2 == 1 or (expires and tonumber(expires) <= now)
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

  for at = start + 1 + 2 * count, #ARGV, 6 do answer[#answer + 1] = end_one(at) end
  -- Insert: trim_dead
end
close_ranges()
if ended and flagged('j') then
  -- Insert: hint_joined
end
if (woke or woke_suspect) and flagged('w') then
  -- Insert: hand_over
end
if sooner then
  -- Insert: tell_keepers
end
-- Insert: finish
return keep(table.concat(answer))
