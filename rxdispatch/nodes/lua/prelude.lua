-- INVARIANT. A registered node has its record in NODES, the end of its ttl in EXPIRY, and the
-- number of its last change in LOG. A removed node has a tombstone in GRAVES (its score is the time
-- of the removal) and stays in LOG, until both are purged and the floor is raised to its number.
-- Numbers increase by one, and each is published on CHANNEL, in order: a reader that has received
-- every number has missed nothing.
-- The jobs of a node are the reservations in SLOTS that name its present life. They change only
-- when a slot is reserved or a reservation ends, and only while the node is registered.
-- The last argument of every script says which server process the connection has reached.
local RUN = table.remove(ARGV)
local META, NODES, LOG, EXPIRY, GRAVES, SLOTS, LEASES = unpack(KEYS, 1, 7)
-- CANDIDATE: the epoch to begin if there is none. ECHO: whether the reply contains the published
-- messages. KEEP: how long tombstones stay. SHARE: the share of the fleet that may lapse at once.
-- PATIENCE: how long more nodes than that are kept. The two durations are in microseconds.
local CHANNEL, CANDIDATE, ECHO = ARGV[1], ARGV[2], ARGV[3] == '1'
local KEEP, SHARE, PATIENCE = ARGV[4] * 1000000, tonumber(ARGV[5]), ARGV[6] * 1000000
local REST = 7
local call = redis.call

local known = call('HMGET', META, 'epoch', 'seq', 'floor', 'raw', 'skew', 'server', 'frozen',
  'reaped', 'window')
local epoch = known[1]
local seq = tonumber(known[2] or 0)
local floor = tonumber(known[3] or 0)
local before = seq
-- Fields and values that finish() writes to META.
local meta = {}

-- The fleet's clock: the server's TIME in microseconds, which does not go back when TIME is set
-- back.
local time = call('TIME')
local raw = time[1] * 1000000 + time[2]
local skew = tonumber(known[5] or 0)
local last_raw = tonumber(known[4] or 0)

local function set(name, value)
  meta[#meta + 1] = name
  meta[#meta + 1] = value
end

if raw < last_raw then
  -- Stored at once: without a write the clock would stand still until TIME has caught up.
  skew = skew + (last_raw - raw)
  set('raw', raw)
  set('skew', skew)
end
local now = raw + skew

local founded = false
local function found_epoch()
  epoch, founded = CANDIDATE, true
  set('epoch', epoch)
  set('raw', raw)
  set('skew', skew)
end

-- Whether another server process has taken the fleet over since the last write.
local server, replaced = known[6], false
if RUN ~= server then
  -- Insert: fence
end

-- Another server process may have started from older data, so it begins a new epoch. No heartbeat
-- could arrive while there was no server, so that time does not count: otherwise the first call
-- would find the whole fleet lapsed. An epoch of an unknown server ends too, as soon as a client
-- knows which one it is.
if epoch and (replaced or (RUN ~= '' and not server)) then
  skew = skew + math.min(0, last_raw - raw)
  now = raw + skew
  found_epoch()
end

-- The kinds of rows: a whole record, a removal, a heartbeat without news.
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

-- Give the next number to a change of *id* and add its row to the message.
local function append(kind, remaining, id, body)
  if not epoch then found_epoch() end
  seq = seq + 1
  local text = row(kind, seq, remaining, id, body)
  rows[#rows + 1] = text
  size = size + #text
  if size > PIECE then cut() end
  return seq
end

-- The head of a record: the format; status, 0 ready or 1 draining; version; birth, the number under
-- which this life began; capacity; jobs; ttl in milliseconds; the length of the spec. The spec
-- (pool and labels) and the state follow.
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

-- Write a change of a registered node; its ttl keeps running.
local function write(id, node)
  node.version = node.version + 1
  local record = pack(node)
  local number = append(RECORD, left(call('ZSCORE', EXPIRY, id)), id, record)
  call('HSET', NODES, id, record)
  call('ZADD', LOG, number, id)
end

local function bury(id)
  call('ZREM', EXPIRY, id)
  call('HDEL', NODES, id)
  call('ZADD', LOG, append(TOMBSTONE, 0, id, ''), id)
  call('ZADD', GRAVES, now, id)
end

-- End a reservation; the jobs of a node that was removed or registered again do not change.
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

-- A server that is out of memory still allows HDEL, and after its first write a script may use
-- memory. Heartbeats must pass, or the whole fleet would be removed for lack of memory.
local function allow_when_full() call('HDEL', META, '') end

-- The most entries of each kind that a call sweeps, so that no call takes long. The next call
-- continues.
local SWEEP = 200
local WINDOW = 30000000
local FEWEST = 10

local function reap(lapsed)
  local total, count = call('HLEN', NODES), call('ZCOUNT', EXPIRY, '-inf', now)
  local reaped, window = tonumber(known[8] or 0), tonumber(known[9] or 0)
  if now - window > WINDOW then reaped, window = 0, now end
  local frozen, forced = tonumber(known[7] or 0), false
  -- Recently removed nodes count too, or the fleet would be lost a few nodes at a time.
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

-- Ends every script that writes: stores the new state, then publishes the messages.
local function finish()
  cut()
  if seq ~= before then
    set('seq', seq)
    set('raw', raw)
    set('skew', skew)
  end
  if epoch and #meta > 0 then call('HSET', META, unpack(meta)) end
  for _, piece in ipairs(pieces) do call('PUBLISH', CHANNEL, piece) end
  return ECHO and pieces or {}
end
