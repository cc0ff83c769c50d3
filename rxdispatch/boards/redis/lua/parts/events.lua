-- Parts: kinds
-- Keys: TASKS
-- What happens to tasks, for those who listen; the format is also in event_format.py.
local heard = call('PUBSUB', 'NUMSUB', EVENTS)[2] ~= 0
local log, CODES

-- *record* is the task's, if the script has it; it begins with the kind.
local function event(kind, id, token, attempt, worker, reason, record)
  if not heard then return end
  if not log then
    log = {}
    CODES = {
      submitted = 0, claimed = 1, done = 2, retried = 3, released = 4,
      crashed = 5, dead = 6, redriven = 7, discarded = 8, undelivered = 9,
    }
  end
  local task_kind = ''
  if flagged('k') then
    task_kind = kind_of(record or call('HGET', TASKS, id))
    if task_kind == 'default' then task_kind = '' end
  end
  worker, reason = worker or '', reason or ''
  log[#log + 1] = struct.pack('>BI8I4I4I2I2I2', CODES[kind], token or 0, attempt or 0,
    #id, #worker, #reason, #task_kind) .. id .. worker .. reason .. task_kind
end
