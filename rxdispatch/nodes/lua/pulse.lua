-- Sweep, and return the position of the log. Reply: epoch, seq, floor.
if not epoch then found_epoch() end
allow_when_full()
sweep()
finish()
return { epoch, seq, floor }
