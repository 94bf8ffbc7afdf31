"""The processes of one job: how they start, meet, agree, and fail as one."""
