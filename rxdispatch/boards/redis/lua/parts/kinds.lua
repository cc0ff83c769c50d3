-- Parts: head
-- Keys: KINDS
-- The kinds of tasks. A record of another kind than 'default' begins with the length of the kind
-- (2 bytes) and the kind. The first byte of other records is larger than that of any length.
-- KINDS counts the unfinished tasks of each kind but 'default'.
-- Returns the kind, and where the rest of the record begins.
local function kind_of(record)
  if not record or #record < 2 or string.byte(record) > 3 then return 'default', 1 end
  local length = struct.unpack('>I2', record)
  return string.sub(record, 3, 2 + length), 3 + length
end

local function count_kind(kind, count)
  if kind == 'default' then return end
  local left = call('HINCRBY', KINDS, kind, count)
  if left <= 0 then
    call('HDEL', KINDS, kind)
    -- Somebody may join this kind.
    if flagged('j') then call('PUBLISH', JOINED, 'j') end
  end
end

-- Notes that KINDS may count a task that is not on the board any more: its record is lost, and its
-- kind with it.
local function lose_kind()
  if flagged('k') then call('HINCRBY', META, 'lost_kinds', 1) end
end

-- A list of kinds in a field of META: the length of each (2 bytes) and the kind.
local function read_kinds(field)
  local kinds, at = {}, 1
  while at < #field do
    local length = struct.unpack('>I2', field, at)
    kinds[string.sub(field, at + 2, at + 1 + length)] = true
    at = at + 2 + length
  end
  return kinds
end

local function write_kinds(name, kinds)
  local parts = {}
  for kind in pairs(kinds) do parts[#parts + 1] = struct.pack('>I2', #kind) .. kind end
  meta[#meta + 1] = name
  meta[#meta + 1] = table.concat(parts)
end
