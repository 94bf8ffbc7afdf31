"""Scores on disk, and what they say in numbers and words: found, compared, ranked, set beside what others published."""
