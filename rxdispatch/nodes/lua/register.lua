-- Arguments, for each node: id, capacity, ttl in milliseconds, spec, state.
-- Reply: their versions; the published messages.
sweep()
local versions = {}
for at = REST, #ARGV, 5 do
  local id, capacity, ttl = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local record = call('HGET', NODES, id)
  local node
  if record then
    -- The node keeps its birth, so its reservations stay valid.
    node = read(record)
    node.version = node.version + 1
  else
    call('ZREM', GRAVES, id)
    node = { version = 1, birth = seq + 1, jobs = 0 }
  end
  node.status, node.capacity, node.ttl = 0, capacity, ttl
  node.spec, node.state = ARGV[at + 3], ARGV[at + 4]
  record = pack(node)
  call('ZADD', EXPIRY, now + ttl * 1000, id)
  call('ZADD', LOG, append(RECORD, ttl, id, record), id)
  call('HSET', NODES, id, record)
  versions[#versions + 1] = node.version
end
return { versions, finish() }
