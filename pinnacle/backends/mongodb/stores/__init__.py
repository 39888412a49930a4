"""What is kept beside the user's documents: components, artifacts, training runs, and what calls cost."""
