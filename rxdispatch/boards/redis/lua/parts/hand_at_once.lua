-- Parts: deliver
-- Keys: READY
-- Hands over the only task of a submission. Where nothing else is ready, it need not stand in a place
-- first.
if call('ZCARD', READY) == 0 and #rows[1] + #rows[2] <= BYTES then
  local kind = kind_of(rows[2])
  local inbox = taker_of(kind)
  while inbox and not inbox.told do
    if deliver(inbox, { rows[1] }, { places[1] }, { rows[2] }, { '' }) then
      places = {}
      break
    end
    inbox = taker_of(kind)
  end
end
