-- Arguments: ids of slots; those that are not held are ignored. Reply: the published messages.
allow_when_full()
sweep()
for at = REST, #ARGV do free(ARGV[at]) end
return { finish() }
