"""What is done without being asked: rows and host brought together, old rows forgotten, an instance ended."""
