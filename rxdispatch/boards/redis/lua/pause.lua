-- Parts: aside, events
-- Keys: READY, SUSPECTS
-- Stops claims, or allows them again.
-- ARGV 6: '1' to pause, '0' to resume; 7: a kind, if only that is meant. Safe to repeat.
-- A full server allows ZREM, and after its first write a script may also use memory.
call('ZREM', READY, '')
local pausing = ARGV[6] == '1'
if ARGV[7] then
  local kinds = read_kinds(paused_field)
  kinds[ARGV[7]] = pausing or nil
  write_kinds('paused', kinds)
  paused_field = meta[#meta]
elseif pausing then
  flag('p')
else
  flags = string.gsub(flags, 'p', '')
end
if not pausing and flagged('w') then
  woke_suspect = suspected
  if ARGV[7] then
    gone[ARGV[7]] = standing[ARGV[7]]
  else
    for one in pairs(standing) do gone[one] = true end
  end
  -- Insert: hand_over
end
-- Insert: finish
return 1
