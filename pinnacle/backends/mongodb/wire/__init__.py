"""The way to the server, or to mongomock: statements, rows as bytes, what values look like in BSON, and the errors."""
