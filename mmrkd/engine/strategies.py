"""Strategies of mmengine's ``FlexibleRunner``, mended where a run could not be resumed."""

from typing import Any

from mmengine._strategy import FSDPStrategy as MMEngineFSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel

from mmrkd.registry import STRATEGIES


@STRATEGIES.register_module()
class FSDPStrategy(MMEngineFSDPStrategy):
    """mmengine's, with an optimiser state that torch 2.1 and later load: arguments changed their places there."""

    def load_optim_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the state of the optimiser, as :meth:`optim_state_dict` gave it."""
        optimizer = self.optim_wrapper.optimizer
        state = FullyShardedDataParallel.optim_state_dict_to_load(
            model=self.model, optim=optimizer, optim_state_dict=state_dict
        )
        self.optim_wrapper.load_state_dict(state)
