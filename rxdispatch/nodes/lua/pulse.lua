-- Sweep, and say where things stand. Reply: epoch, seq, floor.
local run = run_id()
if epoch then adopt(run) else found_epoch(run) end
in_need()
sweep()
finish()
return { epoch, seq, floor }
