-- Parts: places, claimed_between, let_go, graves, ready
-- Undoes claims that no worker knows of: their tasks return to their places, and nothing is counted.
local function put_back(first, last)
  local ids, tokens = claimed_between(first, last)
  for i, id in ipairs(ids) do
    local attempts, crashes, marks, err = tries(id)
    local place = place_of(tokens[i])
    call('ZREM', CLAIMED, id)
    let_go({ id })
    if marks % 2 == 1 then
      bury(id, place, 'expired', err, attempts, crashes)
    else
      put_ready(id, place)
    end
  end
  close_ranges()
end
