-- Parts: places, claimed_between, held, graves, ready, scheduled, inboxes
-- Keys: PAST
-- Does what has become due: leases lapse, ttls end, delays are over, ids of done tasks are
-- forgotten. A sweep moves about SWEEP tasks of each kind; if more are due, the reply tells it.
local SWEEP = 500

local function lapse(id, token)
  local range = range_of(token)
  local attempts, crashes, marks, err = tries(id)
  local expires = flagged('t') and call('ZSCORE', EXPIRY, id)
  local expired = marks % 2 == 1 or (expires and tonumber(expires) <= now)
  local place = place_of(token)
  if range.handed then
    -- Perhaps nobody has read it. This counts as nothing, once: the task is not handed over again.
    event('undelivered', id, token, attempts + 1, range.worker)
    undelivered = undelivered + 1
    if expired then
      bury(id, place, 'expired', err, attempts, crashes, token, range.worker, attempts + 1)
    else
      set_tries(id, attempts, crashes, marks + 2, err)
      put_ready(id, place)
    end
    return
  end
  crashes = crashes + 1
  event('crashed', id, token, attempts + 1, range.worker)
  if crashes > MAX_CRASHES then
    bury(id, place, 'crashed', err, attempts, crashes, token, range.worker, attempts + 1)
  elseif expired then
    bury(id, place, 'expired', err, attempts, crashes, token, range.worker, attempts + 1)
  else
    set_tries(id, attempts, crashes, marks, err)
    flag('s')
    suspected, woke_suspect = true, true
    call('ZADD', SUSPECTS, place, id)
  end
end

local function sweep_leases()
  local lapsed = call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, SWEEP)
  more = more or #lapsed == SWEEP
  local moved = 0
  for _, member in ipairs(lapsed) do
    if moved >= SWEEP then
      more = true
      break
    end
    local first = tonumber(member)
    if not first then
      call('ZREM', LEASES, member)
    else
      local range = read_range(call('ZRANGEBYSCORE', RANGES, first, first)[1])
      local ids, tokens = {}, {}
      if range then
        latest = range
        ids, tokens = claimed_between(first, range.last)
      else
        -- Its range is lost: the lease was that of all tokens before the next range.
        local following = call('ZRANGEBYSCORE', RANGES, '(' .. member, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
        ids, tokens = claimed_between(first, following[2] and '(' .. following[2] or '+inf')
      end
      if #ids > 0 then
        call('ZREM', CLAIMED, unpack(ids))
        let_go(ids)
        for i, id in ipairs(ids) do lapse(id, tokens[i]) end
        moved = moved + #ids
      end
      if range and range.handed then
        -- Its worker must claim before anything is handed to it again.
        local inbox = read_inbox(range.inbox)
        if inbox then unpark(inbox) end
      end
      -- If its range is lost, there may be more, for which the lease remains.
      if range or #ids < 1000 then drop_range(first) end
    end
  end
end

local function sweep_expired()
  local old = call('ZRANGEBYSCORE', EXPIRY, '-inf', now, 'LIMIT', 0, SWEEP)
  more = more or #old == SWEEP
  if aside_field ~= '' then
    -- Insert: find_aside
    for _, id in ipairs(old) do find_aside(id) end
  end
  for _, id in ipairs(old) do
    local attempts, crashes, marks, err = tries(id)
    if call('ZSCORE', CLAIMED, id) then
      -- A running attempt may finish. If it retries or releases the task, the task dies.
      call('ZREM', EXPIRY, id)
      set_tries(id, attempts, crashes, marks - marks % 2 + 1, err)
    else
      local place = call('ZSCORE', READY, id)
      if not place and suspected then
        place = call('ZSCORE', SUSPECTS, id)
        call('ZREM', SUSPECTS, id)
      end
      if not place then
        local later = call('HGET', PLACE, id) or '0'
        place = string.gsub(later, '%+', '')
        call('ZREM', SCHED, id)
        call('HDEL', PLACE, id)
      end
      call('ZREM', READY, id)
      bury(id, tonumber(place), 'expired', err, attempts, crashes)
    end
  end
end

local function sweep_scheduled()
  local found = call('ZRANGEBYSCORE', SCHED, '-inf', now, 'LIMIT', 0, SWEEP)
  if #found == 0 then return end
  more = more or #found == SWEEP
  local places = call('HMGET', PLACE, unpack(found))
  call('ZREM', SCHED, unpack(found))
  call('HDEL', PLACE, unpack(found))
  local rows = {}
  for i, id in ipairs(found) do
    local place = places[i] or '+0'
    if string.sub(place, 1, 1) == '+' then
      -- A retried task joins the end when its delay is over.
      place = (tonumber(string.sub(place, 2)) or 0) + numbers(1)
    end
    if suspected then
      put_ready(id, tonumber(place) or 0)
    else
      rows[#rows + 1] = tonumber(place) or 0
      rows[#rows + 1] = id
    end
  end
  if #rows > 0 then
    woke = true
    call('ZADD', READY, unpack(rows))
  end
end

-- Sets the field flags and the time of the next sweep by what there is.
local function look_ahead()
  next_due = math.huge
  for letter, key in pairs({ [''] = LEASES, t = EXPIRY, d = SCHED }) do
    local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if first[2] then
      due(tonumber(first[2]))
    else
      flags = string.gsub(flags, letter, '')
    end
  end
  if REMEMBER > 0 then
    -- Not at each id: a board that ends many tasks a second would sweep all the time.
    local first = call('ZRANGE', PAST, 0, 0, 'WITHSCORES')
    if first[2] then due(math.max(tonumber(first[2]), now + 1000000)) end
  end
  if call('HLEN', TRIES) == 0 then
    flags = string.gsub(flags, 'r', '')
    -- Should TRIES be lost, suspects and what workers hold of them remain.
    if call('ZCARD', SUSPECTS) == 0 and call('HLEN', HELD) == 0 then
      flags = string.gsub(flags, 's', '')
    end
  end
  suspected = flagged('s')
end

if next_due == 0 then
  -- Insert: find_standing
end
sweep_leases()
if flagged('t') then sweep_expired() end
if flagged('d') then sweep_scheduled() end
if REMEMBER > 0 then call('ZREMRANGEBYSCORE', PAST, '-inf', now) end
look_ahead()
