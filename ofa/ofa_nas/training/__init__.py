"""Training a supernet, on one process or many: ``ofa-train``, or ``torchrun … -m ofa_nas.training``. Needs torch.

options ──► trainer ──► recipes (stages) ──► sampling (sub-networks of a step) ──► supernet
               │            data (batches)          processes (the other ranks)
               └──► evaluation ──► logs, state (checkpoints), cost
"""
