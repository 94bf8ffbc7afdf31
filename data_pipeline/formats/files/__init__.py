"""Files as files: which ones a config means, whether they are whole, and how to notice that one was replaced."""
