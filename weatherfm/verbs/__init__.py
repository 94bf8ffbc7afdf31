"""What the verbs of the command do: one function each, thin; what a verb needs is imported when it runs."""
