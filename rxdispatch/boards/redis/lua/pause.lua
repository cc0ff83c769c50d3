-- Parts: ready, aside
-- Stops claims, or allows them again.
-- ARGV 6: '1' to pause, '0' to resume; 7: a kind, if only that is meant. Safe to repeat.
-- A full server allows ZREM, and after its first write a script may also use memory.
call('ZREM', READY, '')
local pausing = ARGV[6] == '1'
if ARGV[7] then
  local kinds = read_kinds(paused_field)
  kinds[ARGV[7]] = pausing or nil
  write_kinds('paused', kinds)
elseif pausing then
  flag('p')
else
  flags = string.gsub(flags, 'p', '')
end
if not pausing then
  local ready_before = 0
  sooner = true
  -- Insert: hint_ready
end
-- Insert: finish
return 1
