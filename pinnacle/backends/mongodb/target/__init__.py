"""Outputs of the user's documents: where they are kept, which rows need them, leases on these, and the writing."""
