-- Parts: hint, ready
-- Tells idle workers about tasks that have become ready; ready_before is how many were before.
do
  local ready = ready_count()
  if sooner or (ready_before == 0 and ready > 0) then
    hint(listeners > CROWD and 'r' .. math.max(ready, 1) .. '/' .. listeners or 'r')
  elseif listeners > CROWD and ready_before > 0 and ready == 0 then
    hint('e')
  end
end
