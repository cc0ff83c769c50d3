-- Ids. Reply: 1 where there was such a node, or was lately, else 0; what was published.
in_need()
sweep()
local there = {}
for at = REST, #ARGV do
  local id = ARGV[at]
  if call('HEXISTS', NODES, id) == 1 then
    bury(id)
    there[#there + 1] = 1
  else
    -- Asked again because the reply was lost, or somebody was quicker: no harm.
    there[#there + 1] = call('ZSCORE', GRAVES, id) and 1 or 0
  end
end
return { there, finish() }
