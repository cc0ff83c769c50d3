-- Arguments: ids.
-- Reply: 1 where the node exists or was removed lately, else 0; the published messages.
allow_when_full()
sweep()
local there = {}
for at = REST, #ARGV do
  local id = ARGV[at]
  if call('HEXISTS', NODES, id) == 1 then
    bury(id)
    there[#there + 1] = 1
  else
    -- A repeated call after a lost reply, or another client was faster.
    there[#there + 1] = call('ZSCORE', GRAVES, id) and 1 or 0
  end
end
return { there, finish() }
