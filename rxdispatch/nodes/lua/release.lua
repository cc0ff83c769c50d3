-- Ids of slots; those that are not held are passed over. Reply: what was published.
in_need()
sweep()
for at = REST, #ARGV do free(ARGV[at]) end
return { finish() }
