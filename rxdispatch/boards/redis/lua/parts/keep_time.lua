-- Parts: keepers, inboxes
-- Whether the worker of this claim is a timekeeper. It becomes one if it is parked, and there are too
-- few, or one of them has not been heard of.
local function keeps_time(name, waits)
  local kept, mine = {}, false
  for _, each in ipairs(read_keepers()) do
    if each == name then
      -- In its place: an idle poll must not change the field.
      mine = waits
      if mine then kept[#kept + 1] = name end
    else
      local other = read_inbox(each)
      if other and other.room > 0 and other.heard > now - STALE then kept[#kept + 1] = each end
    end
  end
  if waits and not mine and #kept < KEEPERS then
    mine = true
    kept[#kept + 1] = name
  end
  write_keepers(kept)
  return mine
end
