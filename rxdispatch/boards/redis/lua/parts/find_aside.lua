-- Parts: aside
-- Keys: READY, SUSPECTS
-- Puts a task that stands aside, if it does, back to where it was before; if *fit* is given, only
-- if it accepts the task's kind.
local function find_aside(id, fit)
  local member = call('HGET', PLACE, id)
  -- A scheduled task has decimal digits there, which are larger than the first byte of a length.
  if not member or #member < 13 or string.byte(member) > 3 then return end
  local length = struct.unpack('>I2', member)
  if fit and not fit(string.sub(member, 3, length + 2)) then return end
  local line = string.sub(member, 1, length + 3)
  if call('ZREM', ASIDE, member) == 1 then
    call('HDEL', PLACE, id)
    call('ZADD', string.sub(line, -1) == 's' and SUSPECTS or READY, (read_member(line, member)), id)
  end
end
