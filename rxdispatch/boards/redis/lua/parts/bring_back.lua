-- Parts: allowed
-- Keys: READY, SUSPECTS
-- Puts the best *count* tasks that stand aside and that this claim may take back into their queue.
local function bring_back(letter, queue, count)
  -- The lines by the places of their first tasks. A line is read as it is used up, since there may
  -- be many kinds, and each may have many tasks.
  local lines = {}
  local function step(each)
    if each.at == #each.members then
      each.members, each.at = first_of(each.line, math.max(each.at, 1), each.member), 0
    end
    each.at = each.at + 1
    each.member = each.members[each.at]
    if each.member then each.place, each.id = read_member(each.line, each.member) end
    return each.member
  end
  for one in pairs(standing) do
    if allowed(one) then
      local each = { line = line_of(one, letter), members = {}, at = 0 }
      if step(each) then
        lines[#lines + 1] = each
      elseif call('ZLEXCOUNT', ASIDE, '[' .. line_of(one, ''), '(' .. line_of(one, '\255')) == 0 then
        standing[one], standing_changed = nil, true
      end
    end
  end
  table.sort(lines, function(a, b) return a.place < b.place end)
  local rows, ids, members = {}, {}, {}
  local first = 1
  while lines[first] and #ids < count do
    local each = lines[first]
    rows[#rows + 1], rows[#rows + 2] = each.place, each.id
    ids[#ids + 1], members[#members + 1] = each.id, each.member
    if step(each) then
      local i = first
      while lines[i + 1] and lines[i + 1].place < each.place do
        lines[i], lines[i + 1] = lines[i + 1], each
        i = i + 1
      end
    else
      first = first + 1
    end
  end
  if #ids > 0 then
    call('ZREM', ASIDE, unpack(members))
    call('HDEL', PLACE, unpack(ids))
    call('ZADD', queue, unpack(rows))
  end
end
