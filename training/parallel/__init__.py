"""Layouts of devices, and how the model is put on them: nothing else makes it a distributed one."""
