-- Parts: aside
-- Keys: ASIDE, KINDS
-- Should META be lost: finds the kinds that have tasks which stand aside.
do
  local from = '-'
  repeat
    local member = call('ZRANGEBYLEX', ASIDE, from, '+', 'LIMIT', 0, 1)[1]
    if member then
      -- It begins with its kind, as records do.
      local one = kind_of(member)
      standing[one] = true
      from = '(' .. line_of(one, '\255')
    end
  until not member
  if next(standing) then
    write_kinds('aside', standing)
    aside_field = meta[#meta]
  end
  if next(standing) or call('HLEN', KINDS) > 0 then flag('k') end
end
