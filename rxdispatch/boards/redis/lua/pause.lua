-- Stops all claims, or allows them again.
-- ARGV 6: '1' to pause, '0' to resume. Safe to repeat.
call('DEL', REPLY)
if ARGV[6] == '1' then
  call('HSET', META, 'paused', 1)
else
  call('HDEL', META, 'paused')
  sooner = true
end
finish()
return 1
