-- Parts: head
-- Timekeepers: at most two parked workers, which are told when a scheduled task is due. The field
-- keepers of META has the length (1 byte) and the name of their inboxes.
local KEEPERS, STALE = 2, 2500000

local function read_keepers()
  local keepers, field, at = {}, known[12] or '', 1
  while at < #field do
    local length = string.byte(field, at)
    keepers[#keepers + 1] = string.sub(field, at + 1, at + length)
    at = at + 1 + length
  end
  return keepers
end

local function write_keepers(keepers)
  local parts = {}
  for i, name in ipairs(keepers) do parts[i] = string.char(#name) .. name end
  local field = table.concat(parts)
  if field ~= (known[12] or '') then
    known[12] = field
    meta[#meta + 1] = 'keepers'
    meta[#meta + 1] = field
  end
end
