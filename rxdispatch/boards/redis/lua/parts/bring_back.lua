-- Parts: allowed
-- Keys: READY, SUSPECTS
-- Puts the best *count* tasks that stand aside and that this claim may take back into their queue.
local function bring_back(letter, queue, count)
  local lines = {}
  for one in pairs(standing) do
    if allowed(one) then
      local line = line_of(one, letter)
      local first = first_of(line, 1)[1]
      if first then
        lines[#lines + 1] = { line = line, place = (read_member(line, first)) }
      elseif call('ZLEXCOUNT', ASIDE, '[' .. line_of(one, ''), '(' .. line_of(one, '\255')) == 0 then
        standing[one] = nil
        write_kinds('aside', standing)
      end
    end
  end
  table.sort(lines, function(a, b) return a.place < b.place end)
  local brought = {}
  for _, each in ipairs(lines) do
    local better = 0
    for _, place in ipairs(brought) do
      if place < each.place then better = better + 1 end
    end
    if better >= count then break end
    local members = first_of(each.line, math.min(count, 1000))
    local rows, gone = {}, {}
    for _, member in ipairs(members) do
      local place, id = read_member(each.line, member)
      brought[#brought + 1] = place
      rows[#rows + 1] = place
      rows[#rows + 1] = id
      gone[#gone + 1] = id
    end
    call('ZREM', ASIDE, unpack(members))
    call('HDEL', PLACE, unpack(gone))
    call('ZADD', queue, unpack(rows))
  end
end
