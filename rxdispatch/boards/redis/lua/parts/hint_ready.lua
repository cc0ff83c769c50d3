-- Parts: hint, ready
-- Keys: ASIDE
-- Tells idle workers about tasks that have become ready; ready_before is how many were before.
-- Those may all be of kinds that an idle worker does not know.
do
  local ready = ready_count()
  if sooner or (ready > 0 and (ready_before == 0 or flagged('k'))) then
    hint(listeners > CROWD and 'r' .. math.max(ready, 1) .. '/' .. listeners or 'r')
  elseif listeners > CROWD and ready_before > 0 and ready == 0
      and not (flagged('k') and call('ZCARD', ASIDE) > 0) then
    -- What this script has put aside may be what others are about to claim.
    hint('e')
  end
end
