"""What is told to others, through Redis: rings for the workers, notices for open pages. All of it may be lost."""
