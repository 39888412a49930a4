"""What users declare: models and their parts, as plain data that a catalog can store."""
