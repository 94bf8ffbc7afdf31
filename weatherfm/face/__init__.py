"""What each verb of the command does, as a function of Python: `weatherfm.prepare`, `weatherfm.train`, ..."""
