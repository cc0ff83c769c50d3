-- Parts: take
-- Sorts the tasks of a claim by place, because they come from two queues.
local order = {}
for i = 1, #ids do order[i] = i end
table.sort(order, function(a, b) return tonumber(places[a]) < tonumber(places[b]) end)
local was = { ids, places, records, history }
ids, places, records, history = {}, {}, {}, {}
for i, from in ipairs(order) do
  ids[i], places[i], records[i], history[i] = was[1][from], was[2][from], was[3][from], was[4][from]
end
