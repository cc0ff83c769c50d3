-- Arguments: ids of slots; a slot that is not held is ignored. Reply: the published messages.
allow_when_full()
sweep()
for at = REST, #ARGV do free(ARGV[at]) end
return { finish() }
