-- Parts: head
-- Keys: RANGES, LEASES
local function write_range(first, count, worker, places, deadline)
  call('ZADD', RANGES, first,
    struct.pack('>dI2I2', first, count, #worker) .. worker .. table.concat(places, ' '))
  call('ZADD', LEASES, deadline, first)
  due(deadline)
end
