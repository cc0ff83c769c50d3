-- Parts: head
-- What happens to tasks, for those who listen; the format is also in event_format.py.
local heard = call('PUBSUB', 'NUMSUB', EVENTS)[2] ~= 0
local log, KINDS

local function event(kind, id, token, attempt, worker, reason)
  if not heard then return end
  if not log then
    log = {}
    KINDS = {
      submitted = 0, claimed = 1, done = 2, retried = 3, released = 4,
      crashed = 5, dead = 6, redriven = 7, discarded = 8,
    }
  end
  log[#log + 1] = struct.pack('>BI8I4I4I2I2', KINDS[kind], token or 0, attempt or 0,
    #id, #(worker or ''), #(reason or '')) .. id .. (worker or '') .. (reason or '')
end
