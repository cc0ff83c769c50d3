-- INVARIANT. A registered node has a record in NODES, its ttl's end in EXPIRY, and in LOG the number
-- of its last change. A removed one is in GRAVES instead (score: when) and stays in LOG, until it is
-- purged there and FLOOR raised to its number.
-- Numbers are handed out one by one and every one of them is published on CHANNEL, in order: who has
-- heard them all has missed nothing.
-- The jobs of a node are the reservations in SLOTS that name its present life. Only reserving, and
-- what ends a reservation, changes them, and never of a node that is not there.
local META, NODES, LOG, EXPIRY, GRAVES, SLOTS, LEASES = unpack(KEYS, 1, 7)
-- An epoch should there be none; whether the reply is to hold what was published; seconds that
-- tombstones stay; the share of the fleet that may lapse at once, and seconds until it may all the same.
local CHANNEL, CANDIDATE, ECHO = ARGV[1], ARGV[2], ARGV[3] == '1'
local KEEP, SHARE, PATIENCE = ARGV[4] * 1000000, tonumber(ARGV[5]), ARGV[6] * 1000000
local REST = 7
local call = redis.call

local known = call('HMGET', META, 'epoch', 'seq', 'floor', 'raw', 'skew', 'run', 'frozen', 'reaped',
  'window')
local epoch = known[1]
local seq = tonumber(known[2] or 0)
local floor = tonumber(known[3] or 0)
local before = seq
local news = {}

-- The fleet's clock: server TIME in microseconds, which goes on where it was when TIME is set back.
local time = call('TIME')
local raw = time[1] * 1000000 + time[2]
local skew = tonumber(known[5] or 0)
local last_raw = tonumber(known[4] or 0)

local function set(name, value)
  news[#news + 1] = name
  news[#news + 1] = value
end

if raw < last_raw then
  -- Kept at once: where nobody writes, the clock would stand still until TIME has caught up.
  skew = skew + (last_raw - raw)
  set('raw', raw)
  set('skew', skew)
end
local now = raw + skew

-- Which process the server is; nothing where the user may not ask.
local asked
local function run_id()
  if not asked then
    local info = redis.pcall('INFO', 'server')
    asked = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
  end
  return asked
end

local founded = false
local function found_epoch(run)
  epoch, founded = CANDIDATE, true
  set('epoch', epoch)
  set('run', run)
  set('raw', raw)
  set('skew', skew)
end

-- A server that is another process than the one that wrote the epoch may have come back with older
-- data: what follows is a new epoch. And as long as it was away nobody could be heard, so that time
-- does not count: otherwise the first to come would find the whole fleet lapsed.
local function adopt(run)
  -- Who may not ask cannot tell, and must not undo what another has found.
  if founded or run == '' or known[6] == run then return end
  skew = skew + math.min(0, last_raw - raw)
  now = raw + skew
  found_epoch(run)
end

-- Asking costs more than a heartbeat; where writes come all the time nobody was away.
local AWAY = 3000000
if epoch and raw - last_raw > AWAY then adopt(run_id()) end

-- 1 record, 2 tombstone, 3 heartbeat without news.
local RECORD, TOMBSTONE, TOUCH = 1, 2, 3
local PIECE = 262144
local rows, size, first, echo = {}, 0, seq + 1, {}

local function row(kind, number, remaining, id, body)
  return struct.pack('>BI8I4I2I4', kind, number, remaining, #id, #body) .. id .. body
end

local function message(from, list)
  return struct.pack('>B', 1) .. epoch .. struct.pack('>I8I4', from, #list) .. table.concat(list)
end

local pieces = {}
local function cut()
  if #rows > 0 then
    pieces[#pieces + 1] = message(first, rows)
    rows, size, first = {}, 0, seq + 1
  end
end

-- Give the next number to *id* and tell of it.
local function tell(kind, remaining, id, body)
  if not epoch then found_epoch(run_id()) end
  seq = seq + 1
  local text = row(kind, seq, remaining, id, body)
  rows[#rows + 1] = text
  size = size + #text
  if size > PIECE then cut() end
  return seq
end

-- status 0 ready, 1 draining; version; birth: the number under which this life began; capacity;
-- jobs; ttl in milliseconds; the length of what does not change with heartbeats. Then that, then
-- the state.
local HEAD = '>BBI8I8I4I4I4I4'
local SPEC = 35

local function read(record)
  local _, status, version, birth, capacity, jobs, ttl, spec = struct.unpack(HEAD, record)
  return {
    status = status, version = version, birth = birth, capacity = capacity, jobs = jobs, ttl = ttl,
    spec = string.sub(record, SPEC, SPEC + spec - 1), state = string.sub(record, SPEC + spec),
  }
end

local function pack(node)
  return struct.pack(HEAD, 1, node.status, node.version, node.birth, node.capacity, node.jobs,
    node.ttl, #node.spec) .. node.spec .. node.state
end

local function left(deadline)
  return math.max(0, math.floor((tonumber(deadline or 0) - now) / 1000))
end

-- Write a change of a node that is there; its ttl goes on as it was.
local function write(id, node)
  node.version = node.version + 1
  local record = pack(node)
  local number = tell(RECORD, left(call('ZSCORE', EXPIRY, id)), id, record)
  call('HSET', NODES, id, record)
  call('ZADD', LOG, number, id)
end

local function bury(id)
  call('ZREM', EXPIRY, id)
  call('HDEL', NODES, id)
  call('ZADD', LOG, tell(TOMBSTONE, 0, id, ''), id)
  call('ZADD', GRAVES, now, id)
end

-- End a reservation; of a node that is gone, or came anew, nothing is counted.
local function free(slot)
  local held = call('HGET', SLOTS, slot)
  if not held then return end
  call('ZREM', LEASES, slot)
  call('HDEL', SLOTS, slot)
  local birth, id = struct.unpack('>I8', held), string.sub(held, 9)
  local record = call('HGET', NODES, id)
  if not record then return end
  local node = read(record)
  if node.birth == birth and node.jobs > 0 then
    node.jobs = node.jobs - 1
    write(id, node)
  end
end

-- The first write is one that a full server allows, and then it allows the rest: whoever is alive
-- must be able to say so, or all would be removed for want of memory.
local function in_need() call('HDEL', META, '') end

-- Bounded, so that nobody waits long; the next call goes on.
local SWEEP = 200
local WINDOW = 30000000
local FEWEST = 10

local function reap(lapsed)
  local total, count = call('HLEN', NODES), call('ZCOUNT', EXPIRY, '-inf', now)
  local reaped, window = tonumber(known[8] or 0), tonumber(known[9] or 0)
  if now - window > WINDOW then reaped, window = 0, now end
  local frozen, forced = tonumber(known[7] or 0), false
  -- Those that went a moment ago count too, or a fleet would be lost in small bites.
  if total + reaped >= FEWEST and count + reaped > SHARE * (total + reaped) then
    if frozen == 0 then
      frozen = now
      set('frozen', frozen)
    end
    if now - frozen < PATIENCE then return end
    forced = true
  elseif frozen > 0 then
    set('frozen', 0)
  end
  for _, id in ipairs(lapsed) do bury(id) end
  set('reaped', forced and 0 or reaped + #lapsed)
  set('window', window)
end

local function sweep()
  local slots = call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, SWEEP)
  for _, slot in ipairs(slots) do free(slot) end
  local lapsed = call('ZRANGEBYSCORE', EXPIRY, '-inf', now, 'LIMIT', 0, SWEEP)
  if #lapsed > 0 then
    reap(lapsed)
  elseif tonumber(known[7] or 0) > 0 then
    set('frozen', 0)
  end
  local old = call('ZRANGEBYSCORE', GRAVES, '-inf', now - KEEP, 'LIMIT', 0, SWEEP)
  if #old > 0 then
    for _, id in ipairs(old) do
      floor = math.max(floor, tonumber(call('ZSCORE', LOG, id) or 0))
    end
    call('ZREM', GRAVES, unpack(old))
    call('ZREM', LOG, unpack(old))
    set('floor', floor)
  end
end

-- The end of every script that may write: what is known is kept, then told.
local function finish()
  cut()
  if seq ~= before then
    set('seq', seq)
    set('raw', raw)
    set('skew', skew)
  end
  if #news > 0 then call('HSET', META, unpack(news)) end
  for _, piece in ipairs(pieces) do call('PUBLISH', CHANNEL, piece) end
  return ECHO and pieces or {}
end
