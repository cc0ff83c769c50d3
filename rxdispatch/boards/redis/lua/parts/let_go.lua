-- Parts: head
-- Keys: HELD
-- Releases the suspects among *ids*, whose claims have ended.
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
