-- Arguments: the lease in microseconds, the number of candidates of each slot, then for each slot
-- its id and its candidates, best first, padded with ''.
-- Reply: for each slot the index of the candidate that accepted it, from 1, or 0; the published
-- messages; the present state of the candidates that refused, as a message.
-- If a slot is held already, this request was sent before and its reply was lost.
sweep()
local lease, width = tonumber(ARGV[REST]), tonumber(ARGV[REST + 1])
local chosen, asked, nodes = {}, {}, {}

local function node_of(id)
  if nodes[id] == nil then
    local record = call('HGET', NODES, id)
    nodes[id] = record and read(record) or false
  end
  return nodes[id]
end

local function open(id)
  local node = node_of(id)
  if not node or node.status ~= 0 or node.jobs >= node.capacity then return false end
  return tonumber(call('ZSCORE', EXPIRY, id)) > now
end

for at = REST + 2, #ARGV, width + 1 do
  local slot, choice = ARGV[at], 0
  local held = call('HGET', SLOTS, slot)
  for i = 1, width do
    local id = ARGV[at + i]
    if held then
      if string.sub(held, 9) == id then choice = i end
    elseif id ~= '' and choice == 0 then
      if open(id) then
        local node = nodes[id]
        node.jobs = node.jobs + 1
        write(id, node)
        call('HSET', SLOTS, slot, struct.pack('>I8', node.birth) .. id)
        call('ZADD', LEASES, now + lease, slot)
        choice = i
      else
        asked[id] = true
      end
    end
  end
  chosen[#chosen + 1] = choice
end

local refusing = {}
for id in pairs(asked) do
  local node = nodes[id]
  if node then
    refusing[#refusing + 1] = row(RECORD, tonumber(call('ZSCORE', LOG, id)),
      left(call('ZSCORE', EXPIRY, id)), id, pack(node))
  else
    refusing[#refusing + 1] = row(TOMBSTONE, seq, 0, id, '')
  end
end
local published = finish()
return { chosen, published, #refusing > 0 and epoch and message(seq, refusing) or false }
