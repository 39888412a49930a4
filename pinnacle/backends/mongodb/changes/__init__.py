"""How changes of the user's documents become the work of listeners."""
