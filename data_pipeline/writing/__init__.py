"""How a store gets written: tasks that are restarted, a journal of what is done, a finish in one step."""
