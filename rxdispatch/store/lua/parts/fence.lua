-- Another server process than the one that META names. META has three fields for that:
--   server   the identity of the process that runs the scripts,
--   servers  those that it has replaced, the latest first,
--   turns    how often an identity of servers came back in short order, and when it did last.
-- RUN is the identity that the connection has learned from its server. '+' before it says that the
-- connection has asked for this request, and that nothing is older than the answer.
--
-- INVARIANT. A script in the name of another process than `server` changes nothing, unless its
-- connection has just asked. So a connection that asked before the server changed its identity, by
-- becoming a replica and a primary again, cannot pass for a new server.
--
-- Needs META, RUN, server, raw and call. Sets replaced, and adds to meta what the script stores.
local TURNS, WINDOW, KEPT = 4, 60000000, 8
local just_asked = string.byte(RUN) == 43
if just_asked then RUN = string.sub(RUN, 2) end
if RUN ~= '' and RUN ~= server then
  if server then
    local past = call('HMGET', META, 'servers', 'turns')
    local count, since = string.match(past[2] or '', '^(%d+) (%d+)$')
    count, since = tonumber(count or 0), tonumber(since or 0)
    -- A proxy asks one server and passes the scripts to another: identities say nothing.
    if count >= TURNS then return redis.error_reply('FENCEOFF ' .. server .. ' ' .. RUN) end
    if not just_asked then return redis.error_reply('OTHERSERVER ' .. server) end
    local kept, seen = { server }, false
    for one in string.gmatch(past[1] or '', '%S+') do
      if one == RUN then
        seen = true
      elseif #kept < KEPT then
        kept[#kept + 1] = one
      end
    end
    if seen then
      if math.abs(raw - since) > WINDOW then count = 0 end
      meta[#meta + 1] = 'turns'
      meta[#meta + 1] = string.format('%d %.0f', count + 1, raw)
    end
    meta[#meta + 1] = 'servers'
    meta[#meta + 1] = table.concat(kept, ' ')
    replaced = true
  end
  meta[#meta + 1] = 'server'
  meta[#meta + 1] = RUN
end
