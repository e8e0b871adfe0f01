"""One of the processes that ``test_processes`` starts: the command line, with a look inside.

    torchrun --nproc-per-node 2 two_processes.py FOLDER pretrain-kl ...

At the end of each epoch a process writes what it holds: FOLDER/EPOCH-NUMBER.safetensors.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from kneeoa_mm import cli
from kneeoa_mm.learning import processes, training


def main():
    folder = Path(sys.argv.pop(1))
    end_epoch = training.Recorder.on_train_epoch_end

    def look(self, trainer, learner):
        end_epoch(self, trainer, learner)
        held = {f"network.{k}": v.contiguous() for k, v in learner.network.state_dict().items()}
        held |= {f"kept.{k}": v.contiguous() for k, v in learner.kept.state_dict().items()}
        held["val_loss"] = torch.tensor(learner.val_metrics["loss"])
        held["stale_epochs"] = torch.tensor(self._record.stale_epochs)
        name = f"{len(self._record.history)}-{processes.number()}.safetensors"
        save_file({name: value.clone() for name, value in held.items()}, folder / name)

    training.Recorder.on_train_epoch_end = look
    cli.main()


if __name__ == "__main__":
    main()
