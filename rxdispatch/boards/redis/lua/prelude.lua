-- The beginning of every script of a board: the keys, the options, the clock and shared functions.
--
-- INVARIANT. A task that is on the board has a record in TASKS, and its id is in exactly one of
--   READY    (score: its place), for tasks without a crash behind them,
--   SUSPECTS (score: its place), for ready tasks with a crash behind them,
--   SCHED    (score: when it is due; PLACE has the place that it will take),
--   LEASES   (score: when the lease lapses; MARKS has the token, place and worker),
--   DEAD     (score: when it died; GRAVE says why).
-- A renewal or settlement must name the token in the mark. Sweeping and cancelling remove the mark,
-- so that later scripts refuse the token. Tokens only grow.
--
-- A place is -priority * 2^40 + number. Each task that joins the end gets the next number.
-- Numbers go to redis.call as numbers: `..` would cut them to 14 digits.
-- HELD has two kinds of fields. 't' .. id, for each claimed suspect: its weight and worker.
-- 'w' .. worker: the weight of all suspects that the worker holds; at most ROOM, unless the worker
-- claimed some by their ids.
-- While META has no field 'suspects', no unfinished task has a crash behind it.
local READY, SCHED, LEASES, MARKS, TASKS, TRIES, PLACE, EXPIRY, DEAD, GRAVE, PAST, META, SUSPECTS,
  HELD, REPLY = unpack(KEYS, 1, 15)
local EVENTS, HINTS = ARGV[1], ARGV[2]
local SPAN = 1099511627776
local call = redis.call

local known = call('HMGET', META, 'raw', 'skew', 'max_crashes', 'remember', 'dead_limit',
  'stamp', 'paced', 'crowd', 'paused', 'token', 'suspects')

-- The stored options apply. A call that gives another value is refused before it changes anything.
local OPTIONS = { 'max_crashes', 'remember', 'dead_limit' }
-- Fields and values that finish() writes to META.
local meta = {}
for i = 1, 3 do
  local given, stored = ARGV[2 + i], known[2 + i]
  if given ~= '' then
    if not stored then
      known[2 + i] = given
      meta[#meta + 1] = OPTIONS[i]
      meta[#meta + 1] = given
    elseif tonumber(stored) ~= tonumber(given) then
      return redis.error_reply('CONFLICT ' .. OPTIONS[i] .. ' ' .. stored)
    end
  end
end
local MAX_CRASHES = tonumber(known[3] or 3)
local REMEMBER = tonumber(known[4] or 0)
local DEAD_LIMIT = tonumber(known[5] or 100000)

-- The board's clock: the server's TIME in microseconds. When TIME is set back, the clock does not
-- go back.
local time = call('TIME')
local raw = time[1] * 1000000 + time[2]
local skew = tonumber(known[2] or 0)
local last_raw = tonumber(known[1] or 0)
if raw < last_raw then skew = skew + (last_raw - raw) end
local now = raw + skew

local suspected = known[11] and true or false

local function ready_count()
  return call('ZCARD', READY) + (suspected and call('ZCARD', SUSPECTS) or 0)
end

local ready_before = ready_count()
local ended, sooner, stamp_used = false, false, false
-- No two deaths have the same time, so that a reader of dead letters can continue after the last
-- one that it has read.
local stamp = math.max(now, tonumber(known[6] or 0) + 1)
local heard = call('PUBSUB', 'NUMSUB', EVENTS)[2] ~= 0
local log = {}

local KINDS = {
  submitted = 0, claimed = 1, done = 2, retried = 3, released = 4,
  crashed = 5, dead = 6, redriven = 7, discarded = 8,
}

local function event(kind, id, token, attempt, worker, reason)
  if heard then
    log[#log + 1] = struct.pack('>BI8I4I4I2I2', KINDS[kind], token or 0, attempt or 0,
      #id, #(worker or ''), #(reason or '')) .. id .. (worker or '') .. (reason or '')
  end
end

-- TRIES has failed attempts, crashes, whether the ttl ended while the task was claimed (1 or 0),
-- and the last error.
local function tries(id)
  local found = call('HGET', TRIES, id)
  if not found or #found < 9 then return 0, 0, 0, '' end
  local attempts, crashes, late = struct.unpack('>I4I4B', found)
  return attempts, crashes, late, string.sub(found, 10)
end

local function set_tries(id, attempts, crashes, late, err)
  call('HSET', TRIES, id, struct.pack('>I4I4B', attempts, crashes, late) .. err)
end

local function mark_of(token, place, worker)
  return struct.pack('>I8d', token, place) .. worker
end

local function read_mark(mark)
  -- Missing or damaged: token 0, which no claim has. The task is ready again when its lease lapses.
  if not mark or #mark < 16 then return 0, 0, '' end
  local token, place = struct.unpack('>I8d', mark)
  return token, place, string.sub(mark, 17)
end

-- The server stores a small hash of short values as a list, and scans the list to find a field.
-- With hundreds of claimed tasks, these scans took as long as the rest of the script. One long
-- value makes the server convert the list to a hash table, which stays one until it is empty. No
-- task has the id ''.
local LONG = string.rep('-', 65)
local function fill(hash, rows)
  local length = call('HLEN', hash)
  local grows = length <= 32 and length + #rows / 2 > 32
  if grows then call('HSET', hash, '', LONG) end
  call('HSET', hash, unpack(rows))
  if grows then call('HDEL', hash, '') end
end

local function base_of(place)
  return math.floor(place / SPAN) * SPAN
end

-- META.pace has up to 64 samples (number, time), at most one per second: when a number was given
-- out. To make room for a new sample, this drops the one whose neighbours are closest together in
-- relation to their age, so that the error of an age stays a fraction of that age.
local function keep_pace(number)
  local kept = call('HGET', META, 'pace') or ''
  if #kept >= 1024 then
    local drop, least = 2, math.huge
    for i = 2, #kept / 16 - 1 do
      local before = struct.unpack('>d', kept, 16 * i - 23)
      local after = struct.unpack('>d', kept, 16 * i + 9)
      local width = (after - before) / (now - after + 1000000)
      if width < least then drop, least = i, width end
    end
    kept = string.sub(kept, 1, 16 * drop - 16) .. string.sub(kept, 16 * drop + 1)
  end
  call('HSET', META, 'pace', kept .. struct.pack('>dd', number, now), 'paced', now)
end

local paced = tonumber(known[7] or 0)

-- Reserves numbers for *count* tasks that join the end; returns the first number.
local function numbers(count)
  local number = call('HINCRBY', META, 'seq', count) - count
  if now >= paced + 1000000 then
    paced = now
    keep_pace(number)
  end
  return number
end

local function schedule(id, due, place)
  local first = call('ZRANGE', SCHED, 0, 0, 'WITHSCORES')
  if not first[2] or due < tonumber(first[2]) then sooner = true end
  call('ZADD', SCHED, due, id)
  call('HSET', PLACE, id, place)
end

-- Makes a task dead. Only a claimed task has the last three arguments; *attempt* is the number of
-- the running attempt.
local function bury(id, place, reason, err, attempts, crashes, token, worker, attempt)
  ended = true
  call('HDEL', TRIES, id)
  call('ZREM', EXPIRY, id)
  call('ZADD', DEAD, stamp, id)
  stamp = stamp + 1
  stamp_used = true
  call('HSET', GRAVE, id,
    struct.pack('>I4I4dI2', attempts, crashes, base_of(place), #reason) .. reason .. err)
  event('dead', id, token, attempt, worker, reason)
end

-- Why suspects have a weight: see boards/suspects.py.
local ROOM = 4

local function weight_of(crashes)
  if crashes == 0 then return 0 end
  return crashes == 1 and MAX_CRASHES > 1 and 1 or ROOM
end

local function suspect(id, place)
  if not suspected then
    suspected = true
    meta[#meta + 1] = 'suspects'
    meta[#meta + 1] = 1
  end
  call('ZADD', SUSPECTS, place, id)
end

-- Makes a task ready at *place*, as a suspect if it has a crash behind it.
local function put_ready(id, place)
  local _, crashes = 0, 0
  if suspected then _, crashes = tries(id) end
  call('ZADD', crashes > 0 and SUSPECTS or READY, place, id)
end

-- Subtracts the suspects among *ids* from what their workers hold. The claims have ended.
local function let_go(ids)
  if not suspected or #ids == 0 then return end
  local fields = {}
  for i, id in ipairs(ids) do fields[i] = 't' .. id end
  for i, held in ipairs(call('HMGET', HELD, unpack(fields))) do
    if held then
      call('HDEL', HELD, fields[i])
      local worker = 'w' .. string.sub(held, 2)
      if call('HINCRBY', HELD, worker, -string.byte(held)) <= 0 then call('HDEL', HELD, worker) end
    end
  end
end

-- The most tasks of each kind that one sweep moves. If there may be more, the reply to the worker
-- says that a task is due at once.
local SWEEP = 500
local more = false
-- The bit that keeps *more* in the count of a kept claim reply.
local MORE = 2147483648

local function sweep_leases()
  local lapsed = call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, SWEEP)
  if #lapsed == 0 then return end
  more = more or #lapsed == SWEEP
  local marks = call('HMGET', MARKS, unpack(lapsed))
  call('ZREM', LEASES, unpack(lapsed))
  call('HDEL', MARKS, unpack(lapsed))
  let_go(lapsed)
  for i, id in ipairs(lapsed) do
    if marks[i] or call('HEXISTS', TASKS, id) == 1 then
      local token, place, worker = read_mark(marks[i])
      local attempts, crashes, late, err = tries(id)
      local expires = call('ZSCORE', EXPIRY, id)
      crashes = crashes + 1
      event('crashed', id, token, attempts + 1, worker)
      if crashes > MAX_CRASHES then
        bury(id, place, 'crashed', err, attempts, crashes, token, worker, attempts + 1)
      elseif late == 1 or (expires and tonumber(expires) <= now) then
        bury(id, place, 'expired', err, attempts, crashes, token, worker, attempts + 1)
      else
        set_tries(id, attempts, crashes, late, err)
        suspect(id, place)
      end
    end
  end
end

local function sweep_expired()
  local old = call('ZRANGEBYSCORE', EXPIRY, '-inf', now, 'LIMIT', 0, SWEEP)
  more = more or #old == SWEEP
  for _, id in ipairs(old) do
    local attempts, crashes, _, err = tries(id)
    if call('HEXISTS', MARKS, id) == 1 then
      -- The running attempt may finish. If the worker retries or releases the task, the task dies.
      call('ZREM', EXPIRY, id)
      set_tries(id, attempts, crashes, 1, err)
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

local function sweep_due()
  local due = call('ZRANGEBYSCORE', SCHED, '-inf', now, 'LIMIT', 0, SWEEP)
  if #due == 0 then return end
  more = more or #due == SWEEP
  local places = call('HMGET', PLACE, unpack(due))
  call('ZREM', SCHED, unpack(due))
  call('HDEL', PLACE, unpack(due))
  local rows = {}
  for i, id in ipairs(due) do
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
  if #rows > 0 then call('ZADD', READY, unpack(rows)) end
end

local function sweep()
  sweep_leases()
  sweep_expired()
  sweep_due()
  if REMEMBER > 0 then call('ZREMRANGEBYSCORE', PAST, '-inf', now) end
end

-- Microseconds until a worker should claim again; -1 if nothing is scheduled.
local function due_in()
  if more then return 0 end
  local first = call('ZRANGE', SCHED, 0, 0, 'WITHSCORES')
  if not first[2] then return -1 end
  return math.max(0, tonumber(first[2]) - now)
end

-- Undoes a claim whose reply the client never read: its tasks return to their places, and nothing
-- is counted.
local function abandon(key)
  local kept = call('GET', key)
  if kept and #kept == 20 then
    local base, count, deadline = struct.unpack('>I8I4d', kept)
    count = count % MORE
    for _, id in ipairs(call('ZRANGEBYSCORE', LEASES, deadline, deadline)) do
      local token, place = read_mark(call('HGET', MARKS, id))
      if token >= base and token < base + count then
        local attempts, crashes, late, err = tries(id)
        call('ZREM', LEASES, id)
        call('HDEL', MARKS, id)
        let_go({ id })
        if late == 1 then
          bury(id, place, 'expired', err, attempts, crashes)
        else
          put_ready(id, place)
        end
      end
    end
  end
  -- If the request of that claim arrives later, it finds this reply and claims nothing.
  call('SET', key, struct.pack('>I8I4d', 0, 0, 0), 'PX', 60000)
end

local function trim_dead()
  local over = call('ZCARD', DEAD) - DEAD_LIMIT
  if over <= 0 then return end
  local oldest = call('ZRANGE', DEAD, 0, math.min(over, 2000) - 1)
  call('ZREM', DEAD, unpack(oldest))
  call('HDEL', GRAVE, unpack(oldest))
  call('HDEL', TASKS, unpack(oldest))
  for _, id in ipairs(oldest) do event('discarded', id) end
end

-- Up to this many listeners may all claim for one task. To more listeners, a hint says how many
-- there are, so that they take turns, and another hint says when nothing is ready any more. Their
-- number is what the last PUBLISH returned, because PUBSUB NUMSUB miscounts in Valkey 9.1.
local CROWD = 8
local listeners = tonumber(known[8] or 0)

local function hint(message)
  local found = call('PUBLISH', HINTS, message)
  if found ~= listeners then
    meta[#meta + 1] = 'crowd'
    meta[#meta + 1] = found
    listeners = found
  end
end

-- The end of every script that writes: publishes events and hints, stores the clock and options.
local function finish()
  if stamp_used then call('HSET', META, 'stamp', stamp - 1) end
  if ended then trim_dead() end
  if #log > 0 then call('PUBLISH', EVENTS, struct.pack('>d', now) .. table.concat(log)) end
  local ready = ready_count()
  if sooner or (ready_before == 0 and ready > 0) then
    hint(listeners > CROWD and 'r' .. math.max(ready, 1) .. '/' .. listeners or 'r')
  elseif listeners > CROWD and ready_before > 0 and ready == 0 then
    hint('e')
  end
  if ended and ready == 0 and call('ZCARD', LEASES) == 0 and call('ZCARD', SCHED) == 0 then
    hint('j')
  end
  call('HSET', META, 'raw', raw, 'skew', skew, unpack(meta))
  -- Every unfinished task with a crash behind it has an entry in TRIES.
  if suspected and call('HLEN', TRIES) == 0 then call('HDEL', META, 'suspects') end
end

-- Keeps the reply for a minute, for a repeated request.
local function keep(reply)
  call('SET', REPLY, reply, 'PX', 60000)
  return reply
end
