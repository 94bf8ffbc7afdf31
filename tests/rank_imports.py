"""What ranks of a test need, imported once in the process that they are forked from (`spawn_ranks`)."""

from weatherfm.verbs.run import importing

with importing():  # what is imported is no garbage, and not to be looked through for it, here or in any rank
    import pytest  # noqa: F401
    import torch.distributed.checkpoint
    import torch.distributed.tensor.parallel  # noqa: F401
    import yaml  # noqa: F401
    from torch import _dynamo  # noqa: F401 - PyTorch imports it at its first use

    import weatherfm.data_pipeline.prepare
    import weatherfm.training.forecasting
    import weatherfm.training.plan.rank_step
    import weatherfm.training.trainer  # noqa: F401
