-- Keys: META
-- The beginning of every script: the options, and the clock.
--
-- INVARIANT. A task that is on the board has a record in TASKS, and is in exactly one of
--   READY    (score: its place), for tasks without a crash behind them,
--   SUSPECTS (score: its place), for ready tasks with a crash behind them,
--   ASIDE    (in a line for each kind), for ready tasks of kinds that some worker may not take,
--   SCHED    (score: when it is due; PLACE has the place that it will take),
--   CLAIMED  (score: the token of its claim),
--   DEAD     (score: when it died; GRAVE says why).
-- A renewal or settlement must name the token. Sweeping and cancelling take the task out of
-- CLAIMED, so that later scripts refuse the token. Tokens only grow.
--
-- A place is -priority * 2^40 + number. Each task that joins the end gets the next number.
-- Numbers go to redis.call as numbers: `..` would cut them to 14 digits.
--
-- The last argument of every script says which server process the connection has reached.
local RUN = table.remove(ARGV)
local EVENTS, JOINED = ARGV[1], ARGV[2]
local SPAN = 1099511627776
local call = redis.call

local known = call('HMGET', META, 'raw', 'skew', 'max_crashes', 'remember', 'dead_limit', 'next',
  'flags', 'stamp', 'token', 'seq', 'format', 'keepers', 'aside', 'paused', 'server', 'paced')

-- A board of a newer format may keep what this script would break.
if known[11] and known[11] ~= '1' then return redis.error_reply('FORMAT ' .. known[11]) end

-- Fields and values that finish() writes to META.
local meta = {}
-- The stored options apply. A call that gives another value is refused before it changes anything.
if ARGV[3] ~= '' or ARGV[4] ~= '' or ARGV[5] ~= '' then
  local OPTIONS = { 'max_crashes', 'remember', 'dead_limit' }
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
end
local MAX_CRASHES = tonumber(known[3] or 3)
local REMEMBER = tonumber(known[4] or 0)
local DEAD_LIMIT = tonumber(known[5] or 100000)

local time = call('TIME')
local raw = time[1] * 1000000 + time[2]

-- Whether another server process has taken the board over since the last write.
local server, replaced = known[15], false
if RUN ~= server then
  -- Insert: fence
end

-- The board's clock: the server's TIME in microseconds. When TIME is set back, the clock does not
-- go back. When another server takes over, the clock continues from the last write, whatever its
-- TIME is: nobody could renew a lease meanwhile.
local skew = tonumber(known[2] or 0)
local last_raw = tonumber(known[1] or 0)
if raw < last_raw or replaced then
  skew = skew + (last_raw - raw)
  meta[#meta + 1] = 'skew'
  meta[#meta + 1] = skew
end
local now = raw + skew

-- Nothing is due before this time: no lease lapses, no ttl ends, no delay is over.
known[6] = tonumber(known[6] or '') or math.huge
local next_due = known[6]
-- On a new board, and should META be lost: the first sweep looks at everything.
if not known[1] then next_due = 0 end

local function due(at)
  if at < next_due then next_due = at end
end

-- Letters in the field flags. While one is absent, no script has to look:
-- d: tasks may be scheduled; j: somebody may wait until nothing is left; k: tasks may have other kinds than 'default'; p: the board is paused;
-- r: tasks may have entries in TRIES; s: unfinished tasks may have a crash behind them; t: tasks may
-- have a ttl; w: workers may be parked.
local flags = known[7] or (known[1] and '' or 'drstw')

local function flagged(letter)
  return flags ~= '' and string.find(flags, letter, 1, true) ~= nil
end

local function flag(letter)
  if not flagged(letter) then flags = flags .. letter end
end

local suspected = flagged('s')

-- The kinds that have tasks aside, and those that are paused, as stored; '' if there are none.
local aside_field, paused_field = known[13] or '', known[14] or ''

-- The time of the last death, the last token, and the number that the next task gets.
for i = 8, 10 do known[i] = tonumber(known[i] or 0) end
local stamp, last_token, seq = known[8], known[9], known[10]
if replaced then
  -- The server before this one may have given out tokens that the data does not have, by its own
  -- clock. The jump makes all further ones larger. Jumps add up to an hour at most.
  local lead = math.min(math.max(last_token - raw, 0) + 60000000, 3600000000)
  last_token = math.max(last_token, raw + lead)
  meta[#meta + 1] = 'peak'
  meta[#meta + 1] = raw + 2 * lead
elseif last_token > raw then
  -- Tokens follow the clock, so that older data of this server does not give one out again. After a
  -- jump they follow at half its pace, until it catches up with them at the peak.
  local peak = tonumber(call('HGET', META, 'peak') or 0)
  last_token = math.max(last_token, math.floor((raw + peak) / 2))
end

-- What this script has done: ended a task; scheduled one that is due earlier than any before; made
-- a task ready, or one with a crash behind it.
local ended, sooner, woke, woke_suspect = false, false, false, false
-- The kinds of which it has put tasks aside that others may claim; and how many tasks have lapsed in
-- a delivery.
local gone, undelivered = {}, 0
-- Whether this script has changed nothing, so that it need not store the clock.
local idle = false
-- Whether more is due than one sweep moves, or was claimed than one reply holds.
local more = false
