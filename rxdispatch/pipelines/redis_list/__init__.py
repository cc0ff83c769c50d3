"""A Redis list as a stream whose entries are not lost."""
