-- Parts: head
-- Keys: CLAIMED
-- Returns the claimed tasks whose tokens are from *first* to *last*, at most 1,000, as no claim has
-- more: ids, and their tokens.
local function claimed_between(first, last)
  local found = call('ZRANGEBYSCORE', CLAIMED, first, last, 'WITHSCORES', 'LIMIT', 0, 1000)
  local ids, tokens = {}, {}
  for i = 1, #found, 2 do
    ids[#ids + 1] = found[i]
    tokens[#tokens + 1] = tonumber(found[i + 1])
  end
  return ids, tokens
end
