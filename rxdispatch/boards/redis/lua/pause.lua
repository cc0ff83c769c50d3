-- Parts: ready
-- Stops all claims, or allows them again.
-- ARGV 6: '1' to pause, '0' to resume. Safe to repeat.
-- A full server allows ZREM, and after its first write a script may also use memory.
call('ZREM', READY, '')
if ARGV[6] == '1' then
  flag('p')
else
  flags = string.gsub(flags, 'p', '')
  local ready_before = 0
  sooner = true
  -- Insert: hint_ready
end
-- Insert: finish
return 1
