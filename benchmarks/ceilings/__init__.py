"""Hand-written rivals: for each database, the quickest plain code that makes the same durable writes."""
