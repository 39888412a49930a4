"""Plain values and errors that every other room uses; imports nothing else of pinnacle."""
