-- Parts: allowed
-- Keys: TASKS
-- Puts those of the tasks aside that this claim may not take; *letter_of* returns the line of one.
-- Returns the others, their places and their records; those put aside; and the size of all records.
local function sort_out(found, at, letter_of)
  local left, places_left, records_left, removed, size = {}, {}, {}, {}, 0
  for i, record in ipairs(call('HMGET', TASKS, unpack(found))) do
    local id, one = found[i], record and kind_of(record)
    size = size + #(record or '')
    if one and not allowed(one) then
      put_aside(one, letter_of(id), id, tonumber(at[i]))
      if not paused_kinds[one] then gone[one] = true end
      removed[#removed + 1] = id
    else
      local n = #left + 1
      left[n], places_left[n], records_left[n] = id, at[i], record
    end
  end
  return left, places_left, records_left, removed, size
end
