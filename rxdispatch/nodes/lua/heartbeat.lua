-- Arguments, for each node, no node twice: id, whether a state follows ('1' or ''), state.
-- Reply: their versions, 0 where there is no such node; the published messages.
allow_when_full()
sweep()
local ids, versions = {}, {}
for at = REST, #ARGV, 3 do ids[#ids + 1] = ARGV[at] end
local records = call('HMGET', NODES, unpack(ids))
local nodes, log, expiry = {}, {}, {}
for i, id in ipairs(ids) do
  local record = records[i]
  if record then
    local at = REST + 3 * (i - 1)
    local node = read(record)
    node.version = node.version + 1
    local kind, body = TOUCH, struct.pack('>I8', node.version)
    local changed = ARGV[at + 1] == '1' and ARGV[at + 2] ~= node.state
    if changed then node.state = ARGV[at + 2] end
    record = pack(node)
    if changed then kind, body = RECORD, record end
    log[#log + 1] = append(kind, node.ttl, id, body)
    log[#log + 1] = id
    nodes[#nodes + 1] = id
    nodes[#nodes + 1] = record
    expiry[#expiry + 1] = now + node.ttl * 1000
    expiry[#expiry + 1] = id
    versions[i] = node.version
  else
    versions[i] = 0
  end
end
if #nodes > 0 then
  call('ZADD', EXPIRY, unpack(expiry))
  call('ZADD', LOG, unpack(log))
  call('HSET', NODES, unpack(nodes))
end
return { versions, finish() }
