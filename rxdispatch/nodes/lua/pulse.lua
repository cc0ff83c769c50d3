-- Sweep, and return the position of the log. Reply: epoch, seq, floor.
local run = run_id()
if epoch then adopt(run) else found_epoch(run) end
allow_when_full()
sweep()
finish()
return { epoch, seq, floor }
