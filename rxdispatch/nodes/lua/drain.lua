-- Arguments: ids.
-- Reply: their versions, 0 where there is no such node; the published messages.
allow_when_full()
sweep()
local versions = {}
for at = REST, #ARGV do
  local record = call('HGET', NODES, ARGV[at])
  local version = 0
  if record then
    local node = read(record)
    if node.status == 0 then
      node.status = 1
      write(ARGV[at], node)
    end
    version = node.version
  end
  versions[#versions + 1] = version
end
return { versions, finish() }
