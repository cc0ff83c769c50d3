-- Parts: aside
-- Which kinds this claim may take: those that it names, or all, without those that are paused.
local paused_kinds = read_kinds(paused_field)
local named = nil
if kind == 'kinds' then
  named = {}
  for i = at + 1, #ARGV do named[ARGV[i]] = true end
end

local function allowed(one)
  return not paused_kinds[one] and (not named or named[one])
end
