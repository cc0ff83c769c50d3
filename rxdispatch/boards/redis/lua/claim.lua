-- Sweeps, then claims ready tasks.
-- ARGV 6: limit, 7: lease in microseconds, 8: worker, 9: 'any', or 'only' and then the ids.
-- KEYS from 16: the reply keys of claims of this session whose replies the client never read.
-- Reply: {first token, microseconds until a task is due or -1, ids, records, tries, ids whose
-- records are gone}; the i-th id has the token first + i - 1.
-- For a repeated request, the script keeps the first token, the count (plus MORE if more was due at
-- once) and the deadline. The reply to it has the claims with these tokens that are still held with
-- that deadline; the others are false.
-- A full server allows DEL, and after its first write a script may also use memory: claims must
-- pass, because a task that was worked on frees its memory.
local limit, lease, worker = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]

-- A worker needs the counts in TRIES, but not the last error.
local function counts_of(tries)
  return tries and #tries >= 9 and string.sub(tries, 1, 9) or false
end

local again = call('GET', REPLY)
if again then
  local base, count, deadline = struct.unpack('>I8I4d', again)
  more, count = count >= MORE, count % MORE
  local ids, records, history = {}, {}, {}
  for i = 1, count do ids[i], records[i], history[i] = false, false, false end
  if count > 0 then
    for _, id in ipairs(call('ZRANGEBYSCORE', LEASES, deadline, deadline)) do
      local token = read_mark(call('HGET', MARKS, id))
      if token >= base and token < base + count then
        local i = token - base + 1
        ids[i] = id
        records[i] = call('HGET', TASKS, id)
        history[i] = counts_of(call('HGET', TRIES, id))
      end
    end
  end
  return { base, due_in(), ids, records, history, {} }
end

call('DEL', REPLY)
for i = 16, #KEYS do abandon(KEYS[i]) end
sweep()

local ids, places, records, history = {}, {}, {}, {}
local vanished = {}

-- Adds tasks that were just removed from READY or SUSPECTS to the claim. A task whose ttl is over
-- becomes dead instead: a sweep moves a limited number, so it may have left some.
local function take(found, at)
  if #found == 0 then return 0 end
  local written = call('HMGET', TASKS, unpack(found))
  local limits = {}
  if call('ZCARD', EXPIRY) > 0 then limits = call('ZMSCORE', EXPIRY, unpack(found)) end
  local before = {}
  if call('HLEN', TRIES) > 0 then before = call('HMGET', TRIES, unpack(found)) end
  local size = 0
  for i, id in ipairs(found) do
    if limits[i] and tonumber(limits[i]) <= now then
      local attempts, crashes, _, err = tries(id)
      bury(id, at[i], 'expired', err, attempts, crashes)
    elseif written[i] then
      ids[#ids + 1] = id
      places[#ids] = at[i]
      records[#ids] = written[i]
      history[#ids] = counts_of(before[i])
      size = size + #id + #written[i]
    else
      -- The record was evicted, or deleted by hand: there is nothing to run.
      vanished[#vanished + 1] = id
      call('HDEL', TRIES, id)
      call('ZREM', EXPIRY, id)
      event('discarded', id)
      ended = true
    end
  end
  return size
end

-- A reply has about 8 MiB. The first 16 records show how large records are. Tasks that do not fit
-- stay ready, and the reply says that a task is due at once.
local room, step = 8388608, math.min(16, limit)

local function take_some(found, at)
  local size = take(found, at)
  room = room - size
  step = room <= 0 and 0 or math.min(1000, math.floor(room * #found / math.max(size, 1)))
end

-- Claims the first suspects, as long as this worker has room for them and they are among the
-- *limit* best ready tasks.
local function take_suspects()
  local held = tonumber(call('HGET', HELD, 'w' .. worker) or 0)
  if held >= ROOM then return end
  local first, found, at = call('ZRANGE', SUSPECTS, 0, ROOM - 1, 'WITHSCORES'), {}, {}
  for i = 1, #first, 2 do
    local id, place = first[i], tonumber(first[i + 1])
    local _, crashes = tries(id)
    held = held + weight_of(crashes)
    local before = call('ZCOUNT', READY, '-inf', '(' .. string.format('%.0f', place))
    if held > ROOM or before + #found >= limit then break end
    found[#found + 1] = id
    at[#at + 1] = place
  end
  if #found > 0 then
    call('ZREM', SUSPECTS, unpack(found))
    take_some(found, at)
  end
end

-- Sorts by place, after tasks were taken from both queues.
local function sort()
  local order = {}
  for i = 1, #ids do order[i] = i end
  table.sort(order, function(a, b) return places[a] < places[b] end)
  local was = { ids, places, records, history }
  ids, places, records, history = {}, {}, {}, {}
  for i, from in ipairs(order) do
    ids[i], places[i], records[i], history[i] = was[1][from], was[2][from], was[3][from], was[4][from]
  end
end

if limit > 0 and not known[9] then
  if ARGV[9] == 'only' then
    local wanted, seen = {}, {}
    for i = 10, #ARGV do
      if not seen[ARGV[i]] then
        seen[ARGV[i]] = true
        wanted[#wanted + 1] = ARGV[i]
      end
    end
    local scores = #wanted > 0 and call('ZMSCORE', READY, unpack(wanted)) or {}
    if suspected and #wanted > 0 then
      -- A claim by id ignores how many suspects the worker holds.
      for i, place in ipairs(call('ZMSCORE', SUSPECTS, unpack(wanted))) do
        scores[i] = scores[i] or place
      end
    end
    local next_one = 1
    while next_one <= #wanted and #ids < limit and step > 0 do
      local found, at = {}, {}
      while next_one <= #wanted and #found < math.min(step, limit - #ids) do
        if scores[next_one] then
          found[#found + 1] = wanted[next_one]
          at[#at + 1] = tonumber(scores[next_one])
        end
        next_one = next_one + 1
      end
      if #found > 0 then
        call('ZREM', READY, unpack(found))
        if suspected then call('ZREM', SUSPECTS, unpack(found)) end
        take_some(found, at)
      end
    end
    more = more or (next_one <= #wanted and step == 0)
  else
    if suspected then take_suspects() end
    local mixed = #ids > 0
    while #ids < limit and step > 0 do
      local popped = call('ZPOPMIN', READY, math.min(step, limit - #ids))
      if #popped == 0 then break end
      local found, at = {}, {}
      for i = 1, #popped, 2 do
        found[#found + 1] = popped[i]
        at[#at + 1] = tonumber(popped[i + 1])
      end
      take_some(found, at)
    end
    more = more or (#ids < limit and step == 0)
    if mixed then sort() end
  end
end

local count = #ids
local base, deadline = 0, now + lease
if count > 0 then
  local last = tonumber(known[10] or 0)
  -- Lua counts up to 2^53. A larger number comes from another client, and is ignored.
  base = last < 9007199254740992 and math.max(last + 1, raw) or raw
  local leases, marks = {}, {}
  for i, id in ipairs(ids) do
    leases[2 * i - 1] = deadline
    leases[2 * i] = id
    marks[2 * i - 1] = id
    marks[2 * i] = mark_of(base + i - 1, places[i], worker)
    if suspected and history[i] then
      local _, crashes = struct.unpack('>I4I4', history[i])
      local weight = weight_of(crashes)
      if weight > 0 then
        call('HSET', HELD, 't' .. id, string.char(weight) .. worker)
        call('HINCRBY', HELD, 'w' .. worker, weight)
      end
    end
    if heard then event('claimed', id, base + i - 1, tries(id) + 1, worker) end
  end
  call('ZADD', LEASES, unpack(leases))
  fill(MARKS, marks)
  meta[#meta + 1] = 'token'
  meta[#meta + 1] = base + count - 1
end
finish()
keep(struct.pack('>I8I4d', base, count + (more and MORE or 0), deadline))
return { base, due_in(), ids, records, history, vanished }
