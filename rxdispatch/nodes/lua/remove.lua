-- Arguments: ids.
-- Reply: 1 where the node existed or was removed recently, else 0; the published messages.
allow_when_full()
sweep()
local there = {}
for at = REST, #ARGV do
  local id = ARGV[at]
  if call('HEXISTS', NODES, id) == 1 then
    bury(id)
    there[#there + 1] = 1
  else
    -- The node has a tombstone if this is a repeated call, or if another client was faster.
    there[#there + 1] = call('ZSCORE', GRAVES, id) and 1 or 0
  end
end
return { there, finish() }
