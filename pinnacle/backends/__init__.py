"""One folder a database, the same file names in each."""
